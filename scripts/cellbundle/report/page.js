"use strict";
// The page is complete without this script, which adds: order, filter, view, fading outlines, enlarged pictures, copy.
(() => {
  const find = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;

  for (const button of all("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  }

  async function copy(button) {
    const source = document.getElementById(button.dataset.copy);
    const lines = all("dt", source).map((term) => `${term.textContent}: ${term.nextElementSibling.textContent}`);
    const text = lines.length ? lines.join("\n") : source.textContent;
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source); // no access to the clipboard: one key press is left to the reader
      button.textContent = "Selected: press Ctrl+C";
    }
    button.disabled = true;
    setTimeout(() => Object.assign(button, { textContent: label, disabled: false }), 1500);
  }

  const body = find("#table tbody");
  root.dataset.script = "ready";
  if (!body) return;

  // One item an image; a failed one has no card.
  const collator = new Intl.Collator(undefined, { numeric: true });
  const items = [...body.rows].map((row, index) => {
    const link = find("a", row);
    const cells = [...row.cells].map((cell) => cell.textContent);
    return {
      index, row, link, name: cells[0], lower: cells[0].toLowerCase(),
      values: cells.map((text) => parseFloat(text.replaceAll(",", ""))),
      card: link && document.getElementById(link.hash.slice(1)),
    };
  });
  const gallery = find(".gallery");
  const shown = find("#shown");
  find(".tools").hidden = false;

  // Order
  const order = find("#order");
  const direction = find("#direction");
  const heads = all("#table thead th");
  let descending = false;

  function compare(column) {
    if (column < 0) return (a, b) => a.index - b.index;
    if (column === 0) return (a, b) => collator.compare(a.name, b.name);
    return (a, b) => a.values[column] - b.values[column];
  }

  function sort(column, down) {
    descending = down;
    order.value = column;
    direction.textContent = down ? "↓" : "↑";
    direction.setAttribute("aria-pressed", down);
    heads.forEach((head, i) => head.setAttribute("aria-sort", i !== column ? "none" : down ? "descending" : "ascending"));
    const missing = (item) => column > 0 && Number.isNaN(item.values[column]);
    const by = compare(column);
    items.sort((a, b) => missing(a) - missing(b) || (missing(a) ? 0 : down ? by(b, a) : by(a, b)) || a.index - b.index);
    body.append(...items.map((item) => item.row));
    gallery?.append(...items.flatMap((item) => item.card ?? []));
  }

  heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(i, Number(order.value) === i && !descending));
    head.append(button);
    head.setAttribute("aria-sort", "none");
  });
  order.addEventListener("change", () => sort(Number(order.value), order.value >= 0 && descending));
  direction.addEventListener("click", () => sort(Number(order.value), !descending));

  // Filter
  const filter = find("#filter");
  function refilter() {
    const words = filter.value.toLowerCase().split(/\s+/);
    let count = 0;
    for (const item of items) {
      const match = words.every((word) => item.lower.includes(word));
      item.row.hidden = !match;
      if (item.card) item.card.hidden = !match;
      count += match;
    }
    shown.textContent = count < items.length ? `${count} of ${items.length}` : "";
  }
  filter.addEventListener("input", refilter);

  // View
  const views = all("[data-view]");
  function view(name) {
    find(".results").dataset.view = name;
    for (const button of views) button.setAttribute("aria-pressed", button.dataset.view === name);
  }
  for (const button of views) button.addEventListener("click", () => view(button.dataset.view));
  view(views.length ? "pictures" : "table");

  // Outlines
  const sliders = all(".opacity");
  let visible = 100; // what "o" goes back to
  function fade(value) {
    root.style.setProperty("--outlines", value / 100);
    for (const slider of sliders) slider.value = value;
    if (value > 0) visible = value;
  }
  for (const slider of sliders) slider.addEventListener("input", () => fade(Number(slider.value)));

  // Enlarged pictures
  const viewer = find("#viewer");
  const stage = find(".stage");
  const stack = find(".stack");
  const zoomButton = find("#zoom");
  let current = null;

  const enlargeable = () => items.filter((item) => item.card && !item.card.hidden && find(".pic", item.card));

  function show(item) {
    const list = enlargeable();
    const place = list.indexOf(item);
    current = item;
    find("#viewer-name").textContent = item.name;
    find("#viewer-place").textContent = `${place + 1} of ${list.length}`;
    find("#viewer-facts").textContent = [...item.row.cells].slice(1)
      .map((cell, i) => `${heads[i + 1].textContent} ${cell.textContent}`).join("  ·  ");
    find("#viewer-files").replaceChildren(...all(".files a", item.card).map((link) => link.cloneNode(true)));
    find("#previous").disabled = place <= 0;
    find("#next").disabled = place >= list.length - 1;
    stack.replaceChildren(...all(".pic img", item.card).map((image) => {
      const copied = image.cloneNode();
      Object.assign(copied, { loading: "eager", draggable: false });
      return copied;
    }));
    zoom(false);
    if (!viewer.open) viewer.showModal();
  }

  function step(by) {
    const list = enlargeable();
    const next = list[list.indexOf(current) + by];
    if (next) show(next);
  }

  function zoom(on, x = 0.5, y = 0.5) {
    stage.classList.toggle("zoomed", on);
    zoomButton.setAttribute("aria-pressed", on);
    const first = find("img", stack);
    stack.classList.toggle("enlarged", on && first.naturalWidth < stack.clientWidth);
    stage.scrollTo(x * stage.scrollWidth - stage.clientWidth / 2, y * stage.scrollHeight - stage.clientHeight / 2);
  }
  const zoomed = () => stage.classList.contains("zoomed");

  for (const item of items) {
    const picture = item.card && find(".pic", item.card);
    for (const link of picture ? [picture, item.link] : []) {
      link.addEventListener("click", (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        show(item);
      });
    }
    if (item.card && !picture) item.link.addEventListener("click", () => view("pictures"));
  }
  find("#previous").addEventListener("click", () => step(-1));
  find("#next").addEventListener("click", () => step(1));
  find("#close").addEventListener("click", () => viewer.close());
  zoomButton.addEventListener("click", () => zoom(!zoomed()));
  let dragged = 0; // pixels; the end of a drag is no click
  stage.addEventListener("pointerdown", () => { dragged = 0; });
  stage.addEventListener("pointermove", (event) => {
    if (event.buttons !== 1 || event.pointerType !== "mouse") return;
    dragged += Math.abs(event.movementX) + Math.abs(event.movementY);
    stage.scrollBy(-event.movementX, -event.movementY);
  });
  stage.addEventListener("click", (event) => {
    if (dragged > 4) return;
    const box = stage.getBoundingClientRect();
    zoom(!zoomed(), (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  });
  viewer.addEventListener("close", () => (gallery.checkVisibility() ? find(".pic", current.card) : current.link).focus());

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("[type=search], select")) return;
    const arrows = viewer.open && !zoomed() && event.target.type !== "range";
    if (event.key === "o" && sliders.length) fade(Number(sliders[0].value) > 0 ? 0 : visible);
    else if (event.key === "z" && viewer.open) zoom(!zoomed());
    else if (event.key === "/" && !viewer.open) filter.focus();
    else if (event.key === "ArrowRight" && arrows) step(1);
    else if (event.key === "ArrowLeft" && arrows) step(-1);
    else return;
    event.preventDefault();
  });
})();
