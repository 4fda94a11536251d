// Codes of an image, and the history of what was done to them. A rectangle of positions is {x, y, w, h}.

class Grid {
  // depth codebooks, h rows, w columns; data is (depth, h, w); size is [H, W], pixels of the image
  constructor(depth, h, w, data, size) {
    Object.assign(this, { depth, h, w, data, size });
  }

  // The codes at a position, one of each codebook.
  at(x, y) {
    return Array.from({ length: this.depth }, (_, layer) => this.data[(layer * this.h + y) * this.w + x]);
  }

  // A rectangle of it.
  part({ x, y, w, h }) {
    const data = new Int32Array(this.depth * h * w);
    for (let layer = 0, to = 0; layer < this.depth; layer++) {
      for (let row = 0; row < h; row++, to += w) {
        const from = (layer * this.h + y + row) * this.w + x;
        data.set(this.data.subarray(from, from + w), to);
      }
    }
    return new Grid(this.depth, h, w, data, [h * ABOUT.stride, w * ABOUT.stride]);
  }

  // With another grid put over it at a position: {grid, place}, place being what it covers; null where it misses.
  with(other, x, y) {
    const place = this.clipped({ x, y, w: other.w, h: other.h });
    if (!place) return null;
    const data = this.data.slice();
    for (let layer = 0; layer < this.depth; layer++) {
      for (let row = 0; row < place.h; row++) {
        const from = (layer * other.h + place.y - y + row) * other.w + place.x - x;
        data.set(other.data.subarray(from, from + place.w), (layer * this.h + place.y + row) * this.w + place.x);
      }
    }
    return { grid: new Grid(this.depth, this.h, this.w, data, this.size), place };
  }

  // With another code of one codebook in a rectangle.
  filled(place, layer, code) {
    const part = this.part(place);
    part.data.fill(code, layer * place.h * place.w, (layer + 1) * place.h * place.w);
    return this.with(part, place.x, place.y);
  }

  clipped({ x, y, w, h }) {
    const [left, top] = [Math.max(0, x), Math.max(0, y)];
    const [right, bottom] = [Math.min(this.w, x + w), Math.min(this.h, y + h)];
    return right > left && bottom > top ? { x: left, y: top, w: right - left, h: bottom - top } : null;
  }

  grown({ x, y, w, h }, by) {
    if (by === Infinity) return { x: 0, y: 0, w: this.w, h: this.h };
    return this.clipped({ x: x - by, y: y - by, w: w + 2 * by, h: h + 2 * by });
  }

  // How many positions differ from another grid of the same size.
  differences(other) {
    const area = this.h * this.w;
    let count = 0;
    for (let at = 0; at < area; at++) {
      for (let layer = 0; layer < this.depth; layer++) {
        if (this.data[layer * area + at] !== other.data[layer * area + at]) {
          count++;
          break;
        }
      }
    }
    return count;
  }
}

class History {
  constructor(grid) {
    this.states = [grid];
    this.now = 0;
  }

  get grid() {
    return this.states[this.now];
  }

  push(grid) {
    this.states.splice(this.now + 1, Infinity, grid);
    if (this.states.length > 500) this.states.shift();
    this.now = this.states.length - 1;
  }

  // One step back (-1) or forth (1); whether there was one.
  move(step) {
    const there = this.states[this.now + step] !== undefined;
    if (there) this.now += step;
    return there;
  }
}
