// Speedscope: the same stacks in a tool made for them, in a frame that loads nothing either.

async function unpacked(id) {
  const packed = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), (sign) => sign.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

// Without WebGL it would stay empty.
function canDraw() {
  const canvas = document.createElement("canvas");
  return Boolean(window.DecompressionStream && canvas.getContext("webgl"));
}

function handOver(frame, profile) {
  const { document: inside, DataTransfer, ClipboardEvent } = frame.contentWindow;
  const clipboardData = new DataTransfer();
  clipboardData.setData("text/plain", profile);
  inside.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
}

function keepSpeedscope() {
  const place = document.getElementById("speedscope");
  if (!recorded.flame[1][1] || !canDraw()) return;
  const button = element("button", "Open in speedscope", { type: "button", class: "more" });
  button.addEventListener("click", async () => {
    button.disabled = true;
    const [style, prelude] = ["style", "prelude"].map((one) => document.getElementById(`speedscope-${one}`).textContent);
    const script = prelude + (await unpacked("speedscope-script"));
    const frame = element("iframe", "", { title: "speedscope" });
    frame.addEventListener("load", () => handOver(frame, document.getElementById("profile").textContent));
    frame.srcdoc = `<!DOCTYPE html><meta charset="utf-8"><title>speedscope</title><style>${style}</style><body>\x3cscript>${script}\x3c/script>`;
    place.replaceChildren(frame);
  });
  place.append(button);
}

keepSpeedscope();
