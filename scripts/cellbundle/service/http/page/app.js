// The page of the service: an image goes to the server, its outlines and measurements come back.
import { showSizes } from "./sizes.js";
import { Viewer, cellsOf } from "./viewer.js";

const find = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en");
const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const NAMES = { tiff: "_labels.tif", png: "_labels.png", geojson: ".geojson", json: "_measurements.json" };
const NO_ANSWER = "The server did not answer. It may have stopped, or the image is larger than it takes.";

const work = find("work");
const busy = find("busy");
let token = ""; // not stored anywhere
let file = null;
let outlines = null; // GeoJSON as the server sent it
let running = new AbortController();
let again = () => {};

const viewer = new Viewer(find("canvas"), (scale, cell) => {
  find("level").textContent = `${Math.round(100 * scale)} %`;
  find("cell").textContent = cell ? described(cell) : "";
});

function described({ name, kind, values }) {
  const area = "area_um2" in values ? `${number.format(values.area_um2)} µm²` : `${number.format(values.area)} px`;
  const score = "score" in values ? `score ${values.score.toFixed(2)}` : null;
  return [`Cell ${name}`, kind, area, score].filter(Boolean).join(" · ");
}

/** What the server says; throws an error whose message people understand, with the status if there is one. */
async function ask(url, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(url, { ...options, headers });
  } catch (error) {
    throw options.signal?.aborted ? options.signal.reason : Object.assign(new Error(NO_ANSWER), { cause: error });
  }
  if (response.ok) return response;
  const said = await response.json().then((body) => body.error?.message, () => null);
  const wait = Number(response.headers.get("Retry-After"));
  const message = `${said ?? `the server answered ${response.status}`}${wait ? `; try again in ${wait} s` : ""}`;
  throw Object.assign(new Error(message), { status: response.status });
}

function segment(format, signal) {
  const query = new URLSearchParams({ format });
  if (find("bundle").value) query.set("bundle", find("bundle").value);
  if (find("diameter").value && !find("diameters").hidden) query.set("diameter", find("diameter").value);
  const body = new FormData();
  body.append("image", file);
  return ask(`v1/segment?${query}`, { method: "POST", body, signal });
}

/** Do something that may take long and may fail, and say so meanwhile and afterwards. */
async function attempt(words, action) {
  running.abort();
  const mine = running = new AbortController();
  const started = performance.now();
  const [said, elapsed] = busy.children;
  const tell = () => { elapsed.textContent = `${Math.round((performance.now() - started) / 1000)} s`; };
  const clock = setInterval(tell, 1000);
  again = () => attempt(words, action);
  find("problem").hidden = true;
  said.textContent = words;
  tell();
  work.dataset.busy = "";
  try {
    await action(mine.signal);
  } catch (error) {
    if (error.name !== "AbortError") complain(error);
  } finally {
    clearInterval(clock);
    if (running === mine) delete work.dataset.busy;
  }
}

function complain(error) {
  find("login").hidden = error.status !== 401;
  if (error.status === 401) { find("token").focus(); if (!token) return; }
  const { message } = error; // the server's begin with a small letter
  find("problem").firstElementChild.textContent = `${message[0].toUpperCase()}${message.slice(1)}${/[.!?]$/.test(message) ? "" : "."}`;
  find("problem").hidden = false;
  if (!viewer.width) work.dataset.state = "empty";
}

/** Show the image as the server reads it: browsers know no TIFF, show dim images black, and turn photographs. */
async function picture(signal) {
  const response = await segment("preview", signal);
  const [width, height] = ["Width", "Height"].map((side) => Number(response.headers.get(`X-Image-${side}`)));
  viewer.show(await createImageBitmap(await response.blob()), width, height);
}

/** The line below the title: the size of the image, and what else is known. */
function say(...more) {
  const facts = [`${whole.format(viewer.width)} × ${whole.format(viewer.height)} px`, ...more].filter(Boolean);
  find("facts").replaceChildren(...facts.map((text) => Object.assign(document.createElement("span"), { textContent: text })));
}

function open(chosen) {
  file = chosen;
  viewer.clear();
  find("title").textContent = file.name;
  document.title = `${file.name} – cellbundle`;
  find("facts").textContent = "";
  work.dataset.state = "image";
  find("canvas").focus({ preventScroll: true });
  run();
}

function run() {
  outlines = null;
  viewer.outline([]);
  work.dataset.state = "image";
  return attempt("Looking for cells", async (signal) => {
    if (!viewer.width) await picture(signal);
    say();
    const response = await segment("geojson", signal);
    outlines = await response.text();
    show(cellsOf(JSON.parse(outlines)), response.headers);
  });
}

function show(cells, headers) {
  viewer.outline(cells);
  find("count").textContent = whole.format(cells.length);
  find("cells").textContent = cells.length === 1 ? "cell" : "cells";
  find("canvas").setAttribute("aria-label", `${file.name} with the outlines of ${whole.format(cells.length)} cells`);
  const diameter = headers.get("X-Cell-Diameter");
  say(find("bundle").value, diameter && `cells of about ${whole.format(diameter)} px`, `${number.format(headers.get("X-Seconds"))} s`);
  const physical = cells.length > 0 && cells.every((cell) => "area_um2" in cell.values);
  showSizes(find("sizes"), cells.map((cell) => cell.values[physical ? "area_um2" : "area"]), physical ? "µm²" : "px");
  showClasses(cells);
  work.dataset.state = "done";
}

/** How many cells there are of each kind, where the bundle tells kinds apart. */
function showClasses(cells) {
  const kinds = Map.groupBy(cells.filter((cell) => cell.kind), (cell) => cell.kind);
  find("classes").replaceChildren(...[...kinds].sort((a, b) => b[1].length - a[1].length).map(([kind, members]) => {
    const item = document.createElement("li");
    const swatch = document.createElement("i");
    swatch.style.background = members[0].colour;
    item.append(swatch, kind, Object.assign(document.createElement("b"), { textContent: whole.format(members.length) }));
    return item;
  }));
}

function save(format) {
  const stem = file.name.replace(/\.[^.]+$/, "");
  return attempt("Preparing the file", async (signal) => {
    const blob = format === "geojson" ? new Blob([outlines], { type: "application/geo+json" }) : await (await segment(format, signal)).blob();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = stem + NAMES[format];
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  });
}

async function bundles() {
  const list = await (await ask("v1/bundles")).json();
  find("login").hidden = true;
  find("bundle").replaceChildren(...list.map(({ name, description }) => Object.assign(new Option(name, name), { title: description })));
  find("bundles").hidden = list.length < 2;
  const choose = () => {
    const chosen = list.find(({ name }) => name === find("bundle").value);
    find("diameters").hidden = !chosen?.options.diameter;
    find("diameter").placeholder = chosen?.options.finds_diameter ? "auto" : chosen?.options.diameter ?? "";
  };
  find("bundle").addEventListener("change", choose);
  choose();
  find("options").hidden = find("bundles").hidden && find("diameters").hidden;
  if (file && !outlines) run();
}

function start() {
  again = start;
  find("problem").hidden = true;
  return bundles().catch(complain);
}

find("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = find("token").value;
  start();
});
find("options").addEventListener("submit", (event) => event.preventDefault());
find("options").addEventListener("change", () => { if (file && find("diameter").checkValidity()) run(); });
find("retry").addEventListener("click", () => again());
const stop = () => { if ("busy" in work.dataset) running.abort(new Error("Stopped.")); };
find("cancel").addEventListener("click", stop);

// Images come by dialogue, drop and paste.
const take = (files) => { if (files?.length) open(files[0]); };
find("file").addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
find("another").addEventListener("click", () => find("file").click());
addEventListener("paste", (event) => take(event.clipboardData?.files));
let inside = 0; // how many elements a dragged file has entered and not left
addEventListener("dragenter", () => { inside += 1; work.dataset.drag = ""; });
addEventListener("dragleave", () => { inside -= 1; if (!inside) delete work.dataset.drag; });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  delete work.dataset.drag;
  take(event.dataTransfer.files);
});

for (const button of document.querySelectorAll("[data-format]")) button.addEventListener("click", () => save(button.dataset.format));
find("in").addEventListener("click", () => viewer.zoom(1.4));
find("out").addEventListener("click", () => viewer.zoom(1 / 1.4));
find("fit").addEventListener("click", () => viewer.fit());
function fade(value) {
  find("fade").value = value;
  viewer.opacity = value / 100;
  viewer.draw();
}
let visible = 100; // what "o" goes back to
find("fade").addEventListener("input", (event) => { fade(event.target.value); visible = Number(event.target.value) || visible; });
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=range], [type=file]), select")) return;
  if (event.key === "o") fade(viewer.opacity ? 0 : visible);
  else if (event.key === "Escape") stop();
});

start();
