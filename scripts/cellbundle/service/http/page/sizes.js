// The histogram of cell sizes, as the pages of `cellbundle predict` have it.
const BINS = 24;
const LARGEST = 0.995; // quantile: the last bar also counts the few beyond, which would squeeze the others
const SVG = "http://www.w3.org/2000/svg";

const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const whole = new Intl.NumberFormat("en");

function quantile(sorted, share) {
  const at = share * (sorted.length - 1);
  const low = Math.floor(at);
  return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
}

/** The next of 1, 2, 2.5, 5 and 10 times a power of ten. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 2.5, 5, 10].find((step) => step * power >= value);
}

function make(parent, tag, text, attributes = {}) {
  const element = document.createElementNS(parent.namespaceURI, tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent.append(element);
  return element;
}

/** Fill the figure with the areas of cells; nothing is shown of no cells. */
export function showSizes(figure, areas, unit) {
  figure.hidden = areas.length === 0;
  if (figure.hidden) return;
  const find = (selector) => figure.querySelector(selector);
  const sorted = Float64Array.from(areas).sort();
  const [low, median, high] = [0.25, 0.5, 0.75].map((share) => number.format(quantile(sorted, share)));
  const width = roundUp(Math.max(quantile(sorted, LARGEST), 1) / BINS);
  const counts = new Array(BINS).fill(0);
  for (const area of sorted) counts[Math.min(Math.floor(area / width), BINS - 1)] += 1;
  const tallest = Math.max(...counts);

  find("#quartiles").replaceChildren("Median ", Object.assign(document.createElement("b"), { textContent: `${median} ${unit}` }),
    `; the middle half lies between ${low} and ${high}.`);
  const svg = find("svg");
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${BINS} 100`);
  svg.setAttribute("aria-label", `Histogram of the area of ${whole.format(areas.length)} cells; the numbers follow`);
  const rows = find("tbody");
  rows.replaceChildren();
  const head = make(rows, "tr", "");
  for (const name of [unit, "cells"]) make(head, "th", name, { scope: "col" });
  counts.forEach((count, i) => {
    const range = i === BINS - 1 ? `≥ ${number.format(i * width)}` : `${number.format(i * width)}–${number.format((i + 1) * width)}`;
    const height = (100 * count) / tallest;
    const bar = document.createElementNS(SVG, "rect");
    for (const [name, value] of Object.entries({ x: i + 0.06, y: 100 - height, width: 0.88, height })) bar.setAttribute(name, value);
    make(bar, "title", `${range} ${unit}: ${whole.format(count)} cells`);
    svg.append(bar);
    if (!count) return;
    const row = make(rows, "tr", "");
    make(row, "td", range);
    make(row, "td", whole.format(count));
  });
  find(".median").style.left = `${(100 * Math.min(quantile(sorted, 0.5) / (width * BINS), 1)).toFixed(2)}%`;
  const axis = find(".axis");
  axis.replaceChildren();
  for (let i = 0; i <= 4; i += 1) {
    make(axis, "span", `${number.format((i * BINS * width) / 4)}${i === 4 ? "+" : ""}`).style.left = `${25 * i}%`;
  }
  find("summary").textContent = `Area in ${unit}, as numbers`;
}
