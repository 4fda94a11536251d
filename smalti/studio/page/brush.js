// A view in which positions are brushed away, and numbers of positions are shown as colours.
// It tells its listeners: hover(x, y), change() when other positions are away.

const RAMP = [[0, 22, 20, 60], [0.35, 112, 32, 120], [0.65, 222, 82, 62], [1, 252, 226, 120]]; // see `colourOf`

class Brush extends View {
  constructor(element, listeners) {
    super(element, listeners);
    this.side = 1; // of the brush, in positions
    this.back = false; // whether it brings positions back
    this.away = new Uint8Array(0); // (h, w), 1 where a position is brushed away
    this.heat = null; // (h, w), shares from 0 to 1
    this.lines.addEventListener("contextmenu", (event) => event.preventDefault());
    this.lines.addEventListener("focus", () => this.hover(this.hovered ?? this.last ?? { x: 0, y: 0 }));
  }

  // Another picture: what is away stays so where the grid has the same size.
  open(grid) {
    if (grid.h * grid.w !== this.away.length || grid.w !== this.grid?.w) this.away = new Uint8Array(grid.h * grid.w);
    super.open(grid);
  }

  get count() {
    return this.away.reduce((sum, one) => sum + one, 0);
  }

  // Lists of booleans, true where a position stays.
  get kept() {
    return rowsOf(this.away, this.grid.h, this.grid.w).map((row) => row.map((one) => !one));
  }

  set(change) {
    this.away = this.away.map(change);
    this.drawLines();
    this.listeners.change();
  }

  pointed({ x, y }) {
    const half = Math.floor((this.side - 1) / 2);
    return this.grid.clipped({ x: x - half, y: y - half, w: this.side, h: this.side }) ?? { x, y };
  }

  // Brush away, or bring back, what lies between two positions.
  stroke(from, to, value) {
    const steps = Math.max(1, Math.abs(to.x - from.x), Math.abs(to.y - from.y));
    for (let step = 0; step <= steps; step++) {
      const [x, y] = ["x", "y"].map((axis) => Math.round(from[axis] + ((to[axis] - from[axis]) * step) / steps));
      const place = this.inside({ x, y }) && this.pointed({ x, y });
      for (let row = 0; row < (place?.h ?? 0); row++) {
        const at = (place.y + row) * this.grid.w + place.x;
        this.away.fill(value, at, at + place.w);
      }
    }
    this.drawLines();
    this.listeners.change();
  }

  // What an act makes of positions: 1 is away.
  valueFor(event) {
    return (event.shiftKey || event.button === 2) !== this.back ? 0 : 1;
  }

  pressed(event) {
    if (!this.grid || event.button === 1 || !this.inside(this.position(event))) return;
    this.lines.setPointerCapture(event.pointerId);
    this.anchor = this.position(event);
    this.value = this.valueFor(event);
    this.stroke(this.anchor, this.anchor, this.value);
  }

  moved(event) {
    if (!this.grid) return;
    const place = this.position(event);
    this.hover(this.inside(place) ? place : null);
    if (!this.anchor) return;
    this.stroke(this.anchor, place, this.value);
    this.anchor = place;
  }

  hover(place) {
    if (place) this.last = place;
    super.hover(place);
  }

  typed(event) {
    if (!this.grid || event.altKey || event.ctrlKey || event.metaKey) return;
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const own = this.hovered ?? this.last ?? { x: 0, y: 0 };
    if (event.key === " ") this.stroke(own, own, this.valueFor(event));
    else if (!step) return;
    else if (this.inside({ x: own.x + step[0], y: own.y + step[1] })) this.hover({ x: own.x + step[0], y: own.y + step[1] });
    event.preventDefault();
  }

  drawUnder(context, cell) {
    for (let y = 0, at = 0; y < this.grid.h; y++) {
      for (let x = 0; x < this.grid.w; x++, at++) {
        const box = [x * cell.w, y * cell.h, cell.w, cell.h];
        if (this.heat) {
          context.fillStyle = `rgb(${colourOf(this.heat[at], RAMP).map(Math.round).join(" ")} / 80%)`;
          context.fillRect(...box);
        }
        if (this.away[at]) this.drawAway(context, ...box);
      }
    }
  }

  // Nothing, as image editors show it: a chequered ground.
  drawAway(context, x, y, w, h) {
    for (const [row, column] of [[0, 0], [0, 1], [1, 0], [1, 1]]) {
      context.fillStyle = (row + column) % 2 ? "#c9c9c9" : "#ececec";
      context.fillRect(x + (column * w) / 2, y + (row * h) / 2, w / 2, h / 2);
    }
  }
}
