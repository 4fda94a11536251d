// A picture with its codes' grid over it: one canvas for the pixels, one for the lines, the pointer and the keyboard.
// A view tells its listeners: hover(x, y), select(place), lift(event) when the selection is dragged away.

class View {
  constructor(element, listeners) {
    this.element = element;
    this.listeners = listeners;
    this.pixels = element.querySelector(".pixels");
    this.lines = element.querySelector(".lines");
    this.grid = null;
    this.selection = null; // {x, y, w, h}
    this.hovered = null; // {x, y}
    this.target = null; // {x, y, w, h}, where a drag would drop
    this.marked = null; // (x, y) => whether a position is to be seen; the others are darkened
    this.showsGrid = true;
    this.lines.addEventListener("pointermove", (event) => this.moved(event));
    this.lines.addEventListener("pointerdown", (event) => this.pressed(event));
    this.lines.addEventListener("pointerup", () => (this.anchor = null));
    this.lines.addEventListener("pointercancel", () => (this.anchor = null));
    this.lines.addEventListener("pointerleave", () => this.hover(null));
    this.lines.addEventListener("keydown", (event) => this.typed(event));
    new ResizeObserver(() => this.drawLines()).observe(this.lines);
  }

  // Another image; `size` is [H, W] of the pixels that are shown.
  open(grid) {
    this.grid = grid;
    [this.pixels.height, this.pixels.width] = grid.size;
    this.element.style.setProperty("--ratio", grid.size[1] / grid.size[0]);
    this.element.hidden = false;
    this.selection = null;
    this.drawLines();
  }

  put(pixels, x = 0, y = 0) {
    this.pixels.getContext("2d").putImageData(pixels, x, y);
  }

  // The position under a pointer, also one beyond the edge.
  position(event) {
    const box = this.lines.getBoundingClientRect();
    const cell = this.cell(box.width, box.height);
    return { x: Math.floor((event.clientX - box.left) / cell.w), y: Math.floor((event.clientY - box.top) / cell.h) };
  }

  // The size of a position where the picture is so large; the last ones may lie half outside of it.
  cell(width, height) {
    if (ABOUT.fixed_size) return { w: width / this.grid.w, h: height / this.grid.h };
    return { w: (ABOUT.stride * width) / this.grid.size[1], h: (ABOUT.stride * height) / this.grid.size[0] };
  }

  inside({ x, y }) {
    return x >= 0 && y >= 0 && x < this.grid.w && y < this.grid.h;
  }

  pressed(event) {
    if (!this.grid || event.button) return;
    const place = this.position(event);
    if (!this.inside(place)) return;
    const own = this.selection;
    const held = own && own.w * own.h > 1 && place.x >= own.x && place.y >= own.y && place.x < own.x + own.w && place.y < own.y + own.h;
    if (held && !event.shiftKey) {
      this.listeners.lift(event, { x: place.x - own.x, y: place.y - own.y });
      return;
    }
    this.lines.setPointerCapture(event.pointerId);
    this.anchor = event.shiftKey && own ? { x: own.x, y: own.y } : place;
    this.select(this.anchor, place);
  }

  moved(event) {
    if (!this.grid) return;
    const place = this.position(event);
    this.hover(this.inside(place) ? place : null);
    if (this.anchor) {
      const { w, h } = this.grid;
      this.select(this.anchor, { x: Math.max(0, Math.min(w - 1, place.x)), y: Math.max(0, Math.min(h - 1, place.y)) });
    }
  }

  // The rectangle between two positions.
  select(from, to) {
    const [x, y] = [Math.min(from.x, to.x), Math.min(from.y, to.y)];
    this.selection = { x, y, w: Math.abs(from.x - to.x) + 1, h: Math.abs(from.y - to.y) + 1 };
    this.drawLines();
    this.listeners.select(this.selection);
  }

  hover(place) {
    if (place?.x === this.hovered?.x && place?.y === this.hovered?.y) return;
    this.hovered = place;
    this.drawLines();
    this.listeners.hover(place);
  }

  typed(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step || !this.grid || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const own = this.selection ?? { x: 0, y: 0, w: 1, h: 1 };
    if (event.shiftKey) {
      const [w, h] = [Math.max(1, own.w + step[0]), Math.max(1, own.h + step[1])];
      if (own.x + w > this.grid.w || own.y + h > this.grid.h) return;
      this.select(own, { x: own.x + w - 1, y: own.y + h - 1 });
      return;
    }
    const to = this.selection ? { x: own.x + step[0], y: own.y + step[1] } : own;
    if (this.inside(to)) this.select(to, to);
  }

  // A light line beside a dark one, seen on every picture.
  drawGrid(context, cell, width, height) {
    for (const [style, shift] of [["rgb(255 255 255 / 28%)", 0.5], ["rgb(0 0 0 / 16%)", -0.5]]) {
      context.fillStyle = style;
      for (let x = 1; x < this.grid.w; x++) context.fillRect(Math.round(x * cell.w) + shift - 0.5, 0, 1, height);
      for (let y = 1; y < this.grid.h; y++) context.fillRect(0, Math.round(y * cell.h) + shift - 0.5, width, 1);
    }
  }

  // What else lies over the picture, below the lines.
  drawUnder(context, cell) {
    if (this.marked) this.darken(context, cell);
  }

  // The rectangle that an act at a position would be of.
  pointed(place) {
    return place;
  }

  darken(context, cell) {
    context.fillStyle = "rgb(0 0 0 / 70%)";
    const [columns, rows] = [cell.w, cell.h].map((side, axis) => Array.from({ length: (axis ? this.grid.h : this.grid.w) + 1 }, (_, at) => Math.round(at * side)));
    for (let y = 0; y < this.grid.h; y++) {
      for (let x = 0; x < this.grid.w; x++) {
        if (!this.marked(x, y)) context.fillRect(columns[x], rows[y], columns[x + 1] - columns[x], rows[y + 1] - rows[y]);
      }
    }
  }

  drawLines() {
    if (!this.grid) return;
    const scale = window.devicePixelRatio || 1;
    const [width, height] = [this.lines.clientWidth, this.lines.clientHeight];
    [this.lines.width, this.lines.height] = [Math.round(width * scale), Math.round(height * scale)];
    const context = this.lines.getContext("2d");
    context.scale(scale, scale);
    const cell = this.cell(width, height);
    const box = (place, colour, thick) => {
      const draw = (style, line) => {
        context.strokeStyle = style;
        context.lineWidth = line;
        context.strokeRect(place.x * cell.w, place.y * cell.h, (place.w ?? 1) * cell.w, (place.h ?? 1) * cell.h);
      };
      draw("rgb(0 0 0 / 55%)", thick + 2);
      draw(colour, thick);
    };
    this.drawUnder(context, cell);
    if (this.showsGrid && cell.w >= 6) this.drawGrid(context, cell, width, height);
    const accent = getComputedStyle(this.element).getPropertyValue("--light");
    if (this.hovered) box(this.pointed(this.hovered), "white", 1);
    if (this.selection) box(this.selection, accent, 2);
    if (this.target) box(this.target, "white", 2);
  }
}
