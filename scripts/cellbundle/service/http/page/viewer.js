// An image with the outlines of its cells on a canvas: zoom, pan, and the cell under the pointer.
const OKABE_ITO = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]];
const TINTS = [0, 0.22, 0.44]; // share of white; the colours are those of the pictures that `cellbundle predict` writes
const LINE = 1.75; // CSS pixels, whatever the magnification
const MAX_SCALE = 40; // CSS pixels for a pixel of the image
const STEP = 1.4; // of one zoom
const SHARP_FROM = 2; // magnification from which on pixels are shown as squares

const colourOf = (id) => {
  const tint = TINTS[id % TINTS.length];
  return `rgb(${OKABE_ITO[id % OKABE_ITO.length].map((c) => Math.round(c + (255 - c) * tint)).join(" ")})`;
};

/** Cells of a GeoJSON FeatureCollection, each with its path, box, colour and measurements. */
export function cellsOf(collection) {
  return collection.features.map(({ geometry, properties }, index) => {
    const path = new Path2D();
    const box = [Infinity, Infinity, -Infinity, -Infinity];
    for (const ring of geometry.type === "Polygon" ? geometry.coordinates : geometry.coordinates.flat()) {
      ring.forEach(([x, y], i) => {
        if (i) path.lineTo(x, y);
        else path.moveTo(x, y);
        box[0] = Math.min(box[0], x); box[1] = Math.min(box[1], y); box[2] = Math.max(box[2], x); box[3] = Math.max(box[3], y);
      });
      path.closePath();
    }
    const kind = properties.classification;
    const name = properties.name ?? String(index + 1);
    const colour = kind?.color ? `rgb(${kind.color.join(" ")})` : colourOf(Number(name));
    return { path, box, name, colour, kind: kind?.name, values: properties.measurements ?? {} };
  });
}

export class Viewer {
  /** @param canvas the element; @param changed called after each change with the magnification and the cell pointed at. */
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.hits = new OffscreenCanvas(1, 1).getContext("2d");
    this.changed = changed;
    this.opacity = 1;
    this.clear();
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.listen();
  }

  clear() {
    this.image?.close();
    Object.assign(this, { image: null, width: 0, height: 0, cells: [], groups: new Map(), pointed: null, moved: false });
    this.scale = 1; this.x = 0; this.y = 0;
    this.draw();
  }

  /** Show a picture (or nothing) at the size of the image, which may differ from its own. */
  show(image, width, height) {
    Object.assign(this, { image, width, height });
    if (!this.moved) this.fit();
    this.draw();
  }

  outline(cells) {
    this.cells = cells;
    this.groups = new Map();
    for (const cell of cells) {
      if (!this.groups.has(cell.colour)) this.groups.set(cell.colour, new Path2D());
      this.groups.get(cell.colour).addPath(cell.path);
    }
    this.draw();
  }

  resize() {
    const { clientWidth, clientHeight } = this.canvas;
    this.ratio = devicePixelRatio || 1;
    this.canvas.width = Math.round(clientWidth * this.ratio);
    this.canvas.height = Math.round(clientHeight * this.ratio);
    if (!this.moved) this.fit();
    this.paint();
  }

  fitting() {
    return Math.min(this.canvas.clientWidth / this.width, this.canvas.clientHeight / this.height, MAX_SCALE);
  }

  fit() {
    if (!this.width) return;
    this.moved = false;
    this.scale = this.fitting();
    this.x = (this.canvas.clientWidth - this.width * this.scale) / 2;
    this.y = (this.canvas.clientHeight - this.height * this.scale) / 2;
    this.draw();
  }

  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    if (!this.width) return;
    const least = Math.min(this.fitting(), 1);
    const scale = Math.min(Math.max(this.scale * factor, least), MAX_SCALE);
    this.pan((x - this.x) * (1 - scale / this.scale), (y - this.y) * (1 - scale / this.scale), scale);
  }

  /** Move by CSS pixels; some of the image always stays in the middle of the frame. */
  pan(dx, dy, scale = this.scale) {
    if (!this.width) return;
    const { clientWidth, clientHeight } = this.canvas;
    const within = (at, length, room) => Math.min(Math.max(at, room / 2 - length), room / 2);
    this.moved = true;
    this.scale = scale;
    this.x = within(this.x + dx, this.width * scale, clientWidth);
    this.y = within(this.y + dy, this.height * scale, clientHeight);
    this.draw();
  }

  draw() {
    this.waiting ??= requestAnimationFrame(() => { this.waiting = undefined; this.paint(); });
  }

  paint() {
    const { context, scale, ratio } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.changed(this.scale, this.pointed);
    if (!this.width) return;
    context.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * this.x, ratio * this.y);
    context.imageSmoothingEnabled = scale < SHARP_FROM;
    context.imageSmoothingQuality = "high";
    if (this.image) context.drawImage(this.image, 0, 0, this.width, this.height);
    else { context.fillStyle = "#000"; context.fillRect(0, 0, this.width, this.height); }
    context.lineWidth = LINE / scale;
    context.lineJoin = "round";
    context.globalAlpha = this.opacity;
    for (const [colour, path] of this.groups) { context.strokeStyle = colour; context.stroke(path); }
    if (this.pointed) {
      context.globalAlpha = 0.35;
      context.fillStyle = this.pointed.colour;
      context.fill(this.pointed.path, "evenodd");
    }
    context.globalAlpha = 1;
  }

  point(clientX, clientY) {
    const frame = this.canvas.getBoundingClientRect();
    const x = (clientX - frame.left - this.x) / this.scale;
    const y = (clientY - frame.top - this.y) / this.scale;
    const inside = ({ box, path }) => x >= box[0] && y >= box[1] && x <= box[2] && y <= box[3] &&
      this.hits.isPointInPath(path, x, y, "evenodd");
    const cell = this.cells.find(inside) ?? null;
    if (cell !== this.pointed) { this.pointed = cell; this.draw(); }
  }

  listen() {
    const { canvas } = this;
    const fingers = new Map();
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const frame = canvas.getBoundingClientRect();
      const amount = event.deltaMode ? event.deltaY * 20 : event.deltaY; // lines or pixels
      this.zoom(1.0025 ** -amount, event.clientX - frame.left, event.clientY - frame.top);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, event);
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
    canvas.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return this.point(event.clientX, event.clientY);
      const other = [...fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
      fingers.set(event.pointerId, event);
      if (!other) return this.pan(event.clientX - before.clientX, event.clientY - before.clientY);
      const apart = (finger) => Math.hypot(finger.clientX - other.clientX, finger.clientY - other.clientY);
      const frame = canvas.getBoundingClientRect();
      this.zoom(apart(event) / Math.max(apart(before), 1), other.clientX - frame.left, other.clientY - frame.top);
    });
    canvas.addEventListener("pointerleave", () => { this.pointed = null; this.draw(); });
    canvas.addEventListener("dblclick", (event) => {
      const frame = canvas.getBoundingClientRect();
      if (this.moved) this.fit();
      else this.zoom(3, event.clientX - frame.left, event.clientY - frame.top);
    });
    const keys = {
      "+": () => this.zoom(STEP), "=": () => this.zoom(STEP), "-": () => this.zoom(1 / STEP), 0: () => this.fit(),
      ArrowLeft: () => this.pan(60, 0), ArrowRight: () => this.pan(-60, 0), ArrowUp: () => this.pan(0, 60), ArrowDown: () => this.pan(0, -60),
    };
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    });
  }
}
