// Charts: what happened over time, drawn anew when the width or the theme changes.

function stacked(bands) {
  const sums = [];
  let below = bands.length ? bands[0].percent.map(() => 0) : [];
  for (const band of bands) {
    below = below.map((sum, at) => sum + band.percent[at]);
    sums.push(below);
  }
  return sums;
}

function axis(extra) {
  return {
    stroke: colour("quiet"),
    grid: { stroke: colour("line"), width: 1 },
    ticks: { stroke: colour("line"), width: 1 },
    ...extra,
  };
}

const steps = uPlot.paths.stepped({ align: -1 });

// The first band is drawn last, over the sums of all.
function cpuChart() {
  const { at_s, bands } = recorded.cpu;
  const sums = stacked(bands);
  const fills = bands.map((_, at) => colour(at === 0 ? "main" : `band-${Math.min(at - 1, 8)}`));
  const series = bands.map((_, at) => ({ fill: fills[at], stroke: fills[at], width: 0, paths: steps, points: { show: false } }));
  return {
    data: [at_s, ...sums.toReversed()],
    options: {
      series: [{}, ...series.toReversed()],
      scales: { x: { time: false }, y: { range: (_, low, high) => [0, Math.max(100, high * 1.05)] } },
      axes: [axis({ values: (_, ticks) => ticks.map((tick) => `${tick} s`) }), axis({ size: 60, values: (_, ticks) => ticks.map((tick) => `${tick} %`) })],
    },
    legend: bands.map((band, at) => ({ colour: fills[at], name: band.name, say: (index) => `${band.percent[index].toFixed(1)} %` })),
  };
}

function waitsChart() {
  const { at_s, states, wait_ms } = recorded.waits;
  const line = (name, scale) => ({ scale, stroke: colour(name), width: 1.5, paths: steps, points: { show: false } });
  const fromZero = (_, low, high) => [0, Math.max(1, high * 1.05)];
  return {
    data: [at_s, states, wait_ms],
    options: {
      series: [{}, line("states", "states"), line("waits", "waits")],
      scales: { x: { time: false }, states: { range: fromZero }, waits: { range: fromZero } },
      axes: [
        axis({ values: (_, ticks) => ticks.map((tick) => `${tick} s`) }),
        axis({ scale: "states", size: 60, stroke: colour("states") }),
        axis({ scale: "waits", side: 1, size: 60, stroke: colour("waits"), grid: { show: false }, values: (_, ticks) => ticks.map((tick) => `${tick} ms`) }),
      ],
    },
    legend: [
      { colour: colour("states"), name: "temporary states a second", say: (at) => formatCount(Math.round(states[at])) },
      { colour: colour("waits"), name: "waited for the GIL, a second", say: (at) => formatTime(1e6 * wait_ms[at]) },
    ],
  };
}

function draw(place, make) {
  place.replaceChildren();
  const { data, options, legend } = make();
  if (!data[0].length) {
    place.append(element("p", "Not sampled.", { class: "quiet" }));
    place.style.minHeight = "0";
    return;
  }
  const list = element("ul", "", { class: "legend" });
  const values = legend.map((entry) => {
    const item = element("li");
    const swatch = element("i");
    swatch.style.background = entry.colour;
    const value = element("b");
    item.append(swatch, element("span", entry.name), value);
    list.append(item);
    return value;
  });
  const say = (chart) => {
    const at = chart.cursor.idx;
    values.forEach((value, number) => {
      value.textContent = at == null ? "" : legend[number].say(at);
    });
  };
  const common = {
    width: Math.max(200, place.clientWidth),
    height: 220,
    legend: { show: false },
    cursor: { points: { show: false }, drag: { x: true, y: false } },
    hooks: { setCursor: [say] },
  };
  new uPlot({ ...common, ...options }, data, place);
  place.append(list);
}

function keepDrawn(id, make) {
  const place = document.getElementById(id);
  let width = 0;
  new ResizeObserver(() => {
    if (place.clientWidth === width) return;
    width = place.clientWidth;
    draw(place, make);
  }).observe(place);
  darkness.addEventListener("change", () => draw(place, make));
}

keepDrawn("cpu", cpuChart);
keepDrawn("waits", waitsChart);
