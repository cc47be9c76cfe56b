// Tables: sorted by a heading, found by a word, and only as long as is asked for.

const FIRST_ROWS = 50;
const MORE_ROWS = 500;
const asTime = (value) => formatTime(value);
const asCount = (value) => formatCount(value);
const asText = (value) => String(value);

const tables = {
  sites: {
    rows: recorded.sites,
    sorted: 2,
    columns: [
      ["called from", asText], ["through", asText], ["cost", asTime], ["calls", asCount], ["temporary", asCount],
      ["a call", asTime], ["waited", asTime], ["longest wait", asTime], ["held", asTime],
    ],
  },
  threads: {
    rows: recorded.threads,
    sorted: 8,
    columns: [
      ["thread", asText], ["kind", asText], ["number", asText], ["calls", asCount], ["temporary", asCount],
      ["waited", asTime], ["held", asTime], ["longest hold", asTime], ["CPU", asTime],
      ["page faults", asCount], ["voluntary switches", asCount], ["involuntary switches", asCount],
    ],
  },
};

function compare(one, other) {
  return typeof one === "string" ? other.localeCompare(one) : one - other;
}

function makeTable(id, { rows, columns, sorted }) {
  const place = document.getElementById(id);
  if (!rows.length) {
    place.append(element("p", "None.", { class: "quiet" }));
    return;
  }
  const state = { by: sorted, downward: true, most: FIRST_ROWS, word: "" };
  const body = element("tbody");
  const more = element("button", "", { type: "button", class: "more" });
  const headings = columns.map(([name], at) => {
    const heading = element("th", "", { scope: "col" });
    const button = element("button", name, { type: "button" });
    button.addEventListener("click", () => sortBy(at, state.by === at ? !state.downward : true));
    heading.append(button);
    return heading;
  });
  const choice = element("select", "", { "aria-label": "sort by" });
  columns.forEach(([name], at) => choice.append(element("option", name, { value: at })));
  choice.addEventListener("change", () => sortBy(Number(choice.value), true));

  function sortBy(at, downward) {
    Object.assign(state, { by: at, downward });
    fill();
  }

  function fill() {
    const word = state.word.toLowerCase();
    const found = word ? rows.filter((row) => `${row[0]} ${row[1]}`.toLowerCase().includes(word)) : [...rows];
    const sign = state.downward ? -1 : 1;
    found.sort((one, other) => sign * compare(one[state.by], other[state.by]));
    headings.forEach((heading, at) => {
      if (at === state.by) heading.setAttribute("aria-sort", state.downward ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
    });
    choice.value = state.by;
    const made = found.slice(0, state.most).map((row) => {
      const line = element("tr");
      columns.forEach(([name, say], at) => line.append(element("td", say(row[at]), { "data-label": name })));
      return line;
    });
    body.replaceChildren(...made);
    const left = found.length - made.length;
    more.hidden = left <= 0;
    more.textContent = `${formatCount(left)} more`;
  }

  more.addEventListener("click", () => {
    state.most += MORE_ROWS;
    fill();
  });
  const bar = element("div", "", { class: "bar" });
  const search = element("input", "", { type: "search", placeholder: "find", "aria-label": `find in ${id}` });
  search.addEventListener("input", () => {
    state.word = search.value;
    fill();
  });
  const label = element("label", "sort by");
  label.append(choice);
  bar.append(search, label);
  const head = element("thead");
  const line = element("tr");
  line.append(...headings);
  head.append(line);
  const table = element("table");
  table.append(head, body);
  const scroller = element("div", "", { class: "rows" });
  scroller.append(table);
  place.append(bar, scroller, more);
  fill();
}

for (const [id, table] of Object.entries(tables)) makeTable(id, table);
