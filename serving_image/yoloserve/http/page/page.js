// Pictures in, boxes out: the same request any client makes, and a canvas to draw the answer on.

const STAGES = { decode: "#4f8fba", preprocess: "#5ab5a0", queue: "#c9a227", inference: "#c65d3b", postprocess: "#8a63b0" };
const LARGEST_ROW_COUNT = 50;
const WEBCAM_JPEG_QUALITY = 0.85;

const $ = (id) => document.getElementById(id);
const canvas = $("picture");
const context = canvas.getContext("2d");

let shown = null; // { source, blob }: what is on the canvas, and how it was sent
let stream = null; // the webcam, while it is on
let asking = null; // aborts the request under way when a newer one replaces it

/** The picture goes out as it is; what is drawn is what came back. */
async function detect(blob) {
  asking?.abort();
  asking = new AbortController();
  const url = `v1/detect?confidence=${$("confidence").value}`;
  const began = performance.now();
  const response = await fetch(url, {
    method: "POST",
    body: blob,
    headers: { "Content-Type": blob.type || "application/octet-stream", Accept: "application/json" },
    signal: asking.signal,
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error?.message ?? `the server answered ${response.status}`);
  return { ...answer, roundTrip: performance.now() - began };
}

async function show(blob) {
  const source = await createImageBitmap(blob, { imageOrientation: "from-image" }).catch(() => null);
  if (!source) return say("This browser cannot show that file: choose a JPEG, PNG, WebP or BMP.", true);
  shown = { source, blob };
  await ask();
}

async function ask() {
  if (!shown) return;
  const { source, blob } = shown;
  try {
    const answer = await detect(blob);
    if (shown?.source !== source) return; // a newer picture is on its way
    draw(source, answer);
    tell(answer);
  } catch (error) {
    if (error.name === "AbortError") return;
    draw(source, null);
    say(`Not answered: ${error.message}`, true);
  }
}

/** Draw the picture in its own pixels, so that boxes need no scaling; CSS fits it to the page. */
function draw(source, answer) {
  canvas.width = source.width || source.videoWidth;
  canvas.height = source.height || source.videoHeight;
  context.drawImage(source, 0, 0);
  $("invitation").hidden = true;
  canvas.hidden = false;
  const objects = answer?.detections ?? [];
  const unit = Math.max(canvas.width, canvas.height) / 640;
  context.lineWidth = 2.2 * unit;
  context.font = `600 ${13 * unit}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (const { name, class: index, confidence, box } of [...objects].reverse()) {
    const colour = colourOf(index);
    context.strokeStyle = context.fillStyle = colour;
    context.strokeRect(box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1);
    const label = `${name} ${confidence.toFixed(2)}`;
    const height = 19 * unit;
    const top = Math.max(0, box.y1 - height);
    context.fillRect(box.x1 - unit, top, context.measureText(label).width + 10 * unit, height);
    context.fillStyle = "#fff";
    context.fillText(label, box.x1 + 4 * unit, top + height / 2);
  }
  canvas.setAttribute("aria-label", answer ? summary(objects) : "Picture without an answer");
}

function tell(answer) {
  const objects = answer.detections;
  say(summary(objects));
  $("rows").replaceChildren(...objects.slice(0, LARGEST_ROW_COUNT).map(row));
  $("found").hidden = objects.length === 0;
  $("facts").hidden = false;
  $("total").textContent = answer.timing_ms.total.toFixed(1);
  $("round-trip").textContent = answer.roundTrip.toFixed(1);
  $("model").textContent = `${answer.model.name} ${answer.model.version}`;
  $("model").title = `sha256 ${answer.model.sha256}`;
  $("revision").textContent = answer.model.revision || "not in a cluster";
  showStages(answer.timing_ms);
}

function row({ name, class: index, confidence, box }) {
  const tr = document.createElement("tr");
  const corners = [box.x1, box.y1, box.x2, box.y2].map(Math.round);
  for (const parts of [[swatch(colourOf(index)), name], [confidence.toFixed(2)], [`${corners[0]}, ${corners[1]} – ${corners[2]}, ${corners[3]}`]]) {
    const td = document.createElement("td");
    td.append(...parts);
    tr.append(td);
  }
  return tr;
}

function showStages(timing) {
  const stages = Object.entries(STAGES);
  $("bar").replaceChildren(...stages.map(([stage, colour]) => {
    const part = document.createElement("span");
    part.style.flexGrow = timing[stage];
    part.style.backgroundColor = colour;
    return part;
  }));
  $("legend").replaceChildren(...stages.map(([stage, colour]) => {
    const item = document.createElement("li");
    item.append(swatch(colour), `${stage} ${timing[stage].toFixed(1)}`);
    return item;
  }));
  $("times").hidden = false;
}

function swatch(colour) {
  const square = document.createElement("span");
  square.className = "swatch";
  square.style.backgroundColor = colour;
  return square;
}

/** "3 objects: 2 circles, 1 star", for eyes and for screen readers. */
function summary(objects) {
  if (objects.length === 0) return "Nothing found above this confidence.";
  const counts = new Map();
  for (const { name } of objects) counts.set(name, (counts.get(name) ?? 0) + 1);
  const list = [...counts].map(([name, count]) => `${count} × ${name}`).join(", ");
  return `${objects.length} ${objects.length === 1 ? "object" : "objects"}: ${list}`;
}

function say(message, bad = false) {
  $("status").textContent = message;
  $("status").classList.toggle("bad", bad);
}

/** Hues a golden angle apart stay distinct however many classes there are. */
function colourOf(index) {
  return `hsl(${(index * 222.5 + 200) % 360} 75% 38%)`;
}

async function startWebcam() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } } });
  } catch (error) {
    return say(`No webcam: ${error.message}. Browsers allow it on https and on localhost only.`, true);
  }
  $("webcam").setAttribute("aria-pressed", "true");
  $("webcam").textContent = "Stop the webcam";
  const video = $("video");
  video.srcObject = stream;
  await video.play();
  const frame = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  while (stream) { // one frame at a time: the newest, as soon as the last one is answered
    frame.getContext("2d").drawImage(video, 0, 0);
    const blob = await frame.convertToBlob({ type: "image/jpeg", quality: WEBCAM_JPEG_QUALITY });
    await show(blob);
    await new Promise(requestAnimationFrame);
  }
}

function stopWebcam() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  $("webcam").setAttribute("aria-pressed", "false");
  $("webcam").textContent = "Use a webcam";
}

function take(file) {
  if (!file) return;
  stopWebcam();
  show(file);
}

$("choose").addEventListener("change", (event) => {
  take(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
});
$("sample").addEventListener("click", async () => take(await (await fetch("page/sample.jpg")).blob()));
$("webcam").addEventListener("click", () => (stream ? stopWebcam() : startWebcam()));
$("confidence").addEventListener("input", () => {
  $("confidence-shown").textContent = Number($("confidence").value).toFixed(2);
  if (!stream) ask();
});
document.addEventListener("paste", (event) => {
  take([...event.clipboardData.files].find((file) => file.type.startsWith("image/")));
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
}
for (const kind of ["dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    if (kind === "drop" || event.relatedTarget === null) $("drop").classList.remove("over");
  });
}
document.addEventListener("drop", (event) => take(event.dataTransfer.files[0]));
