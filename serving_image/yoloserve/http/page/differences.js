// What two revisions made of one picture, for who has the key; nothing of it is kept but in this page.

const MOST_TRIES = 8; // of one picture: behind a Service it is one pod that has it

const $ = (id) => document.getElementById(id);

let key = ""; // never in storage, in an address or in a form that a browser would keep
let round = 0; // of asking: a newer one ends those before

async function ask(path) {
  const response = await fetch(path, { headers: { "X-Yoloserve-Frames-Key": key }, cache: "no-store", credentials: "same-origin" });
  if (response.ok) return response;
  const unknown = "Nothing to show: the key is not the one of this detector's pictures, or this pod was given none.";
  throw new Error(response.status === 404 ? unknown : `The server answered ${response.status}.`);
}

async function show() {
  key = $("frames-key").value.trim() || key;
  $("frames-key").value = "";
  const mine = (round += 1);
  clear();
  try {
    if (!/^[ -~]+$/.test(key)) throw new Error("Type the key first.");
    const told = await (await ask("disagreements")).json();
    if (mine !== round) return;
    say(summary(told));
    const waiting = told.frames.map(place);
    for (const [frame, figure] of waiting) { // one after the other: to draw them is work for who serves
      await fill(frame, figure, told, () => mine === round);
      if (mine !== round) return;
    }
  } catch (error) {
    if (mine === round) say(error.message, true);
  }
}

function summary({ pod, revision, canary, frames }) {
  const where = `pod ${pod} (${revision || "no revision"})`;
  if (!canary) return `Nothing is kept in ${where}: no release is judged now, or without analysis.keepFrames.`;
  if (frames.length === 0) return `Nothing differs so far between ${where} and ${canary}.`;
  return `${frames.length} ${frames.length === 1 ? "picture" : "pictures"} in ${where} on which ${canary} differs most. Other pods have others.`;
}

function place(frame) {
  const item = document.createElement("li");
  const figure = document.createElement("figure");
  const waiting = document.createElement("div");
  waiting.className = "waiting";
  waiting.textContent = "Waiting for the picture";
  const caption = document.createElement("figcaption");
  caption.append(...words(frame).map(([colour, text]) => {
    const span = document.createElement("span");
    const square = document.createElement("span");
    square.className = "swatch";
    square.style.backgroundColor = colour;
    span.append(square, text);
    return span;
  }));
  const time = document.createElement("time");
  time.dateTime = frame.at;
  time.textContent = new Date(frame.at).toLocaleTimeString();
  caption.append(time);
  figure.append(waiting, caption);
  item.append(figure);
  $("frames").append(item);
  return [frame, figure];
}

/** As in the picture: "Lost: 2 × circle", "Added: 1 × star", "1 × circle called square". */
function words({ lost, added, confused }) {
  const list = (counts) => Object.entries(counts).map(([name, count]) => `${count} × ${name}`).join(", ");
  const called = Object.entries(confused).flatMap(([name, others]) =>
    Object.entries(others).map(([other, count]) => `${count} × ${name} called ${other}`));
  return [
    ["#d63844", list(lost) && `Lost: ${list(lost)}`],
    ["#1878d6", list(added) && `Added: ${list(added)}`],
    ["#e28210", called.join(", ")],
  ].filter(([, text]) => text);
}

async function fill(frame, figure, { pod, canary }, current) {
  const place = figure.querySelector(".waiting");
  for (let tried = 0; tried < MOST_TRIES && current(); tried += 1) {
    try {
      const picture = document.createElement("img");
      const url = URL.createObjectURL(await (await ask(`disagreements/${frame.name}.jpg`)).blob());
      picture.src = url;
      picture.alt = `What the stable revision found, and ${canary}: ${words(frame).map(([, text]) => text).join("; ")}`;
      await picture.decode();
      if (!current()) return URL.revokeObjectURL(url);
      return place.replaceWith(picture);
    } catch { /* by chance another pod was asked; or it is gone, which the words below say too */ }
  }
  place.textContent = `Gone by now, or not to be had through this address: kubectl port-forward pod/${pod} 8080`;
}

function clear() {
  for (const picture of document.querySelectorAll("#frames img")) URL.revokeObjectURL(picture.src);
  $("frames").replaceChildren();
}

function say(message, bad = false) {
  $("frames-status").textContent = message;
  $("frames-status").classList.toggle("bad", bad);
}

$("show-frames").addEventListener("click", show);
$("frames-key").addEventListener("keydown", (event) => {
  if (event.key === "Enter") show();
});
