// Flame: boxes as wide as what they took; a click makes one as wide as the page.

const ROW = 22;
const NARROWEST = 2;

function moduleOf(name) {
  return name.split("!")[0];
}

function flameColour(name) {
  let hash = 0;
  for (const sign of moduleOf(name)) hash = (hash * 31 + sign.codePointAt(0)) % 997;
  return colour(`band-${hash % 9}`);
}

function drawFlame(place, said, path) {
  const [names, root] = recorded.flame;
  const shown = path[path.length - 1] ?? root;
  const width = place.clientWidth;
  const colours = new Map();
  let deepest = 0;
  const boxes = document.createDocumentFragment();
  const tell = (box) => {
    said.textContent = `${names[box[0]]}: ${formatTime(box[1])}, ${formatShare(box[1] / (root[1] || 1))}`;
  };
  const put = (box, from, share, depth, above) => {
    if (share * width < NARROWEST) return;
    deepest = Math.max(deepest, depth);
    const name = names[box[0]];
    if (!colours.has(name)) colours.set(name, flameColour(name));
    const made = element("button", name, { type: "button", title: `${name}: ${formatTime(box[1])}` });
    made.style.left = `${100 * from}%`;
    made.style.width = `${100 * share}%`;
    made.style.top = `${depth * ROW}px`;
    if (name.startsWith("[")) made.className = "part";
    else made.style.background = colours.get(name);
    made.addEventListener("pointerenter", () => tell(box));
    made.addEventListener("focus", () => tell(box));
    made.addEventListener("click", () => {
      const to = above.includes(box) ? above.slice(0, above.indexOf(box) + 1) : [...above, box];
      drawFlame(place, said, to);
      tell(box);
    });
    boxes.append(made);
  };
  const putBelow = (box, from, share, depth, above) => {
    let at = from;
    for (const one of box[2]) {
      const part = share * (one[1] / (box[1] || 1));
      put(one, at, part, depth, above);
      if (part * width >= NARROWEST) putBelow(one, at, part, depth + 1, [...above, one]);
      at += part;
    }
  };
  const line = path.length ? path : [root];
  line.forEach((box, depth) => put(box, 0, 1, depth, line.slice(0, depth + 1)));
  putBelow(shown, 0, 1, line.length, line);
  place.replaceChildren(boxes);
  place.style.height = `${(deepest + 1) * ROW}px`;
  tell(shown);
}

function keepFlame() {
  const place = document.getElementById("flame");
  const said = document.getElementById("said");
  if (!recorded.flame[1][1]) {
    said.textContent = "No native thread entered Python.";
    return;
  }
  let width = 0;
  new ResizeObserver(() => {
    if (place.clientWidth === width) return;
    width = place.clientWidth;
    drawFlame(place, said, []);
  }).observe(place);
  darkness.addEventListener("change", () => drawFlame(place, said, []));
}

keepFlame();
