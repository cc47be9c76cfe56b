"use strict";
// Format: how figures are written, as in the terminal's answer, and how elements are made.

function formatTime(ns) {
  const units = [[1e9, 1e8, "s"], [1e6, 1e6, "ms"], [1e3, 1e3, "us"]];
  const unit = units.find((one) => ns >= one[1] * 0.9995);
  if (!unit) return `${Math.round(ns)} ns`;
  const value = ns / unit[0];
  if (unit[2] === "s" && value >= 100) return `${formatCount(Math.round(value))} s`;
  return `${value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0)} ${unit[2]}`;
}

function formatCount(number) {
  return number.toLocaleString("en-US");
}

function formatShare(share) {
  const percent = 100 * share;
  if (percent === 0) return "0 %";
  if (percent < 0.05) return "<0.1 %";
  return `${percent.toFixed(percent < 9.95 ? 1 : 0)} %`;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// Text goes in as text alone: what was recorded is never read as HTML.
function element(kind, text = "", attributes = {}) {
  const made = document.createElement(kind);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const recorded = JSON.parse(document.getElementById("data").textContent);
const darkness = matchMedia("(prefers-color-scheme: dark)");
