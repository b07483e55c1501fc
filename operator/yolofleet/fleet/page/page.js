// Asks the operator every two seconds, and draws anew what has changed: a text that is being read, or
// selected, stays where it is. All that is told is set as text, never as HTML.
const EVERY_MS = 2000
const WORDS = {
  wrong: "wrong", waits: "waiting for a person", moves: "on the way", unseen: "not seen yet", fine: "fine",
}
const main = document.getElementById("detectors")
const counts = document.getElementById("counts")
const filter = document.getElementById("filter")
const status = document.getElementById("status")
const cards = new Map() // by detector: what it was drawn of, and its card
let fleet = null, doubt = "", tag = "", answered = null, lost = ""

const make = (name, options = {}, ...children) => {
  const { class: style, ...attributes } = options
  const element = document.createElement(name)
  if (style) element.className = style
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value)
  element.append(...children.filter((child) => child !== null && child !== ""))
  return element
}

const drawing = (name, attributes, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name)
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value)
  element.append(...children)
  return element
}

const bar = (revisions) => {
  const parts = revisions.filter((each) => each.weight > 0)
  if (!parts.length) return null
  let x = 0
  const rectangles = parts.map((each) => {
    const colour = each.ready ? each.role : "dead"
    const part = drawing("rect", { x, y: 0, width: each.weight, height: 1, class: colour })
    x += each.weight
    return part
  })
  const view = { viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": "true" }
  return make("div", { class: "bar" }, drawing("svg", view, ...rectangles))
}

const table = (revisions) => {
  if (!revisions.length) return null
  const head = make("tr", {},
    make("th", { scope: "col" }, "Revision"), make("th", { scope: "col" }, "Role"),
    make("th", { scope: "col", class: "number" }, "Weight"), make("th", { scope: "col", class: "number" }, "Ready"))
  const rows = revisions.map((each) => make("tr", {},
    make("td", {}, each.name, make("span", { class: "model" }, each.model)),
    make("td", { class: "role" }, each.role),
    make("td", { class: "number" }, `${each.weight} %`),
    make("td", { class: "number" }, `${each.ready}/${each.desired}`)))
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))
}

// One revision that has all of the requests, and nothing else to tell: no table, so that many fit a wall.
const plain = (each) => make("p", { class: "quiet" }, `${each.name}, ${each.weight} %`,
  make("span", { class: "model" }, each.model))

// With the day: a release may wait, and a page stand open, for longer than one.
const clock = (time) => new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" })

const step = (told) => {
  if (!told) return null
  const of = told.of ? ` of ${told.of}` : ""
  const where = told.step ? `Step ${told.step}${of}` : told.strategy || "Release"
  const since = told.since ? `, since ${clock(told.since)}` : ""
  return make("p", {}, `${where}: ${told.weight} % to ${told.revision}${since}`)
}

const analysis = (told) => {
  if (!told) return []
  const checks = told.checks.map((each) =>
    make("li", { class: each.verdict }, `${each.name} `, make("b", {}, each.verdict)))
  const list = checks.length ? [make("ul", { class: "checks", "aria-label": "Checks" }, ...checks)] : []
  return [make("p", {}, `Judged: ${told.said}`), ...list]
}

const load = (told) => {
  if (!told) return null
  const bounds = `${told.min ?? 1} to ${told.max} replicas`
  const asks = told.demand === undefined ? "" : `, the load asks for ${told.demand.toFixed(1)}`
  const floor = told.floor === undefined ? "" : `, at least ${told.floor} now`
  const why = told.reason ? ` (${told.reason})` : ""
  return make("p", { class: "quiet" }, `Scaled: ${bounds}${asks}${floor}${why}`)
}

const why = (reasons = []) => {
  if (!reasons.length) return null
  const told = reasons.flatMap((each) => [
    make("dt", {}, `${each.type}: ${each.reason}`), make("dd", {}, each.message)])
  return make("dl", {}, ...told)
}

const card = (told) => {
  const [namespace, name] = told.detector.split("/")
  const revisions = told.revisions ?? []
  const isPlain = told.state === "fine" && revisions.length === 1
  const id = `d-${told.detector.replace("/", "--")}`
  return make("article", { class: told.state, "aria-labelledby": id },
    make("div", { class: "head" },
      make("h2", { id }, make("small", {}, `${namespace}/`), name),
      make("span", { class: "word" }, WORDS[told.state]),
      make("span", { class: "ready" }, told.ready ? `${told.ready} ready` : "")),
    isPlain ? null : make("p", {}, told.summary),
    told.url ? make("p", { class: "quiet" }, told.url) : null,
    bar(revisions), isPlain ? plain(revisions[0]) : table(revisions), step(told.step), ...analysis(told.analysis), load(told.load), why(told.why))
}

const draw = () => {
  const wanted = filter.value.trim().toLowerCase()
  const shown = fleet.filter((each) => each.detector.toLowerCase().includes(wanted))
  const gone = new Set(cards.keys())
  const wish = shown.map((each) => {
    gone.delete(each.detector)
    const text = JSON.stringify(each), known = cards.get(each.detector)
    if (known?.text === text) return known.card
    const made = card(each)
    cards.set(each.detector, { text, card: made })
    return made
  })
  gone.forEach((key) => cards.delete(key))
  if (!wish.length) {
    wish.push(make("p", { class: "empty" }, wanted ? "No detector has that in its name." : "There is no detector yet."))
  }
  wish.forEach((each, place) => {
    if (main.children[place] !== each) main.insertBefore(each, main.children[place] ?? null)
  })
  while (main.children.length > wish.length) main.lastChild.remove()
}

const count = () => {
  const items = Object.entries(WORDS).map(([state, word]) => {
    const many = fleet.filter((each) => each.state === state).length
    return many ? make("li", { class: state }, make("b", { class: "word" }, `${many}`), ` ${word}`) : null
  })
  counts.replaceChildren(...items.filter(Boolean))
}

const say = (text, isLost) => {
  if (status.textContent !== text) status.textContent = text
  status.classList.toggle("lost", isLost)
}

const ask = async () => {
  try {
    const answer = await fetch("fleet.json", { signal: AbortSignal.timeout(5 * EVERY_MS) })
    if (!answer.ok) throw new Error(`the operator answered ${answer.status}`)
    const now = answer.headers.get("etag")
    if (now !== tag || fleet === null) {
      ({ detectors: fleet, doubt } = await answer.json())
      tag = now
      count()
      draw()
    }
    answered = new Date()
    lost = ""
  } catch {
    lost ||= answered ? ` What is shown is of ${clock(answered)}.` : ""
    lost ||= " "
  }
  if (lost) say(`No answer from the operator: is the port-forward up?${lost}`.trim(), true)
  else if (doubt) say(`What is shown may be old: ${doubt}`, true)
  else say("Live", false)
}

const turn = async () => {
  if (!document.hidden) await ask()
  setTimeout(turn, EVERY_MS)
}

filter.addEventListener("input", () => fleet && draw())
document.addEventListener("visibilitychange", () => document.hidden || ask())
turn()
