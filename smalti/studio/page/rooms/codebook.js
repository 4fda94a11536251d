// The room of all codes: tiles, the most used first. Only the rows in sight are drawn, and only their tiles are decoded.

const CELL = { w: 56, h: 66, tile: 44 }; // CSS pixels: the least of a tile's place, and of the tile
const ATLAS_PIXELS = 1 << 24; // of all tiles that are kept
const DECODED_PIXELS = 1 << 17; // of the tiles that are decoded at a time
const IN_PICTURE = "in this picture";
const IN_DATA = "in the data";
const BY_NUMBER = "number";

class Codebook {
  constructor(studio) {
    this.studio = studio;
    this.size = ABOUT.codebook_size;
    this.frame = find("codebook-tiles");
    this.canvas = this.frame.querySelector("canvas");
    this.layer = 0;
    this.code = null; // that is chosen
    this.wanted = [];
    this.view = new View(find("codebook-picture"), { hover: () => {}, lift: () => {}, select: (place) => this.selected(place) });
    this.view.showsGrid = false;
    this.listen();
  }

  listen() {
    const order = find("codebook-order");
    for (const name of [...(ABOUT.counts ? [IN_DATA] : []), IN_PICTURE, BY_NUMBER]) order.add(new Option(name === BY_NUMBER ? name : `use ${name}`, name));
    order.addEventListener("change", () => this.sort({ anew: true }));
    const layers = find("codebook-layers");
    layers.hidden = ABOUT.num_codebooks === 1;
    for (let layer = 0; layer < ABOUT.num_codebooks; layer++) layers.lastElementChild.add(new Option(`${layer + 1} of ${ABOUT.num_codebooks}`, layer));
    layers.lastElementChild.addEventListener("change", (event) => {
      this.layer = Number(event.target.value);
      this.show({ anew: true });
    });
    find("codebook-find").max = this.size - 1;
    find("codebook-find").addEventListener("change", (event) => {
      const code = Number(event.target.value);
      if (event.target.value !== "" && Number.isInteger(code) && code >= 0 && code < this.size) this.choose(code);
    });
    find("codebook-put").addEventListener("click", () => this.put());
    this.frame.addEventListener("scroll", () => this.soon());
    this.frame.addEventListener("click", (event) => this.choose(this.under(event)));
    this.frame.addEventListener("pointermove", (event) => (this.frame.title = this.words(this.under(event))));
    this.frame.addEventListener("keydown", (event) => this.typed(event));
    new ResizeObserver(() => this.soon()).observe(this.frame);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.soon());
  }

  // ---------------------------------------------------------------- counts and order

  // The picture, or its codes, are others than before.
  show({ anew = false } = {}) {
    const { grid, main } = this.studio;
    const area = grid.h * grid.w;
    this.counts = Array.from({ length: grid.depth }, () => new Uint32Array(this.size));
    grid.data.forEach((code, at) => this.counts[Math.floor(at / area)][code]++);
    // how a code of one codebook looks depends on the others: these have what the picture has most
    const others = this.counts.map((counts, layer) => (layer === this.layer ? 0 : counts.reduce((best, count, code) => (count > counts[best] ? code : best), 0)));
    if (String(others) !== String(this.others)) this.forget(others);
    this.view.open(grid);
    this.view.put(pixelsOf(main.pixels));
    this.view.selection = main.selection;
    this.view.drawLines();
    this.sort({ anew });
    this.choose(this.code, { near: false });
  }

  // How often each code occurs, by what is chosen.
  get uses() {
    return find("codebook-order").value === IN_DATA ? ABOUT.counts[this.layer] : this.counts[this.layer];
  }

  sort({ anew }) {
    const { uses } = this;
    this.order = Uint32Array.from({ length: this.size }, (_, code) => code);
    if (find("codebook-order").value !== BY_NUMBER) this.order.sort((one, other) => uses[other] - uses[one] || one - other);
    this.ranks = new Uint32Array(this.size);
    this.order.forEach((code, rank) => (this.ranks[code] = rank));
    const used = uses.reduce((sum, count) => sum + (count > 0), 0);
    const where = uses === this.counts[this.layer] ? IN_PICTURE : IN_DATA;
    find("codebook-count").textContent = `${used.toLocaleString("en")} of ${this.size.toLocaleString("en")} codes occur ${where}`;
    if (anew) this.frame.scrollTop = 0;
    this.soon();
  }

  // ---------------------------------------------------------------- one code

  words(code) {
    if (code === undefined || code === null) return "";
    const data = ABOUT.counts ? `, ${ABOUT.counts[this.layer][code].toLocaleString("en")} times ${IN_DATA}` : "";
    return `code ${code}: ${this.counts[this.layer][code]} times ${IN_PICTURE}${data}`;
  }

  async choose(code, { near = true } = {}) {
    if (code === undefined || code === null) return this.enable();
    const { grid } = this.studio;
    this.code = code;
    find("codebook-find").value = code;
    find("codebook-code").textContent = this.words(code);
    this.view.marked = (x, y) => grid.data[(this.layer * grid.h + y) * grid.w + x] === code;
    this.view.drawLines();
    this.enable();
    if (near) this.reveal(this.ranks[code]);
    this.soon();
    const [pixels] = await this.studio.model.looks([this.stack(code)]);
    if (code === this.code) fill(find("codebook-tile"), pixels);
  }

  selected(place) {
    this.studio.main.selection = place;
    this.choose(this.studio.grid.at(place.x, place.y)[this.layer]);
  }

  enable() {
    find("codebook-put").disabled = this.code === null || !this.studio.main.selection;
  }

  put() {
    if (!find("codebook-put").disabled) this.studio.setCode(this.code, this.layer);
  }

  stack(code) {
    return this.others.with(this.layer, code);
  }

  // ---------------------------------------------------------------- moving about

  get columns() {
    return Math.max(1, Math.floor(this.frame.clientWidth / CELL.w));
  }

  under(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left) / (box.width / this.columns));
    const row = Math.floor((event.clientY - box.top + this.frame.scrollTop) / CELL.h);
    return column < this.columns ? this.order[row * this.columns + column] : undefined;
  }

  reveal(rank) {
    const top = Math.floor(rank / this.columns) * CELL.h;
    const { scrollTop, clientHeight } = this.frame;
    if (top < scrollTop) this.frame.scrollTop = top;
    else if (top + CELL.h > scrollTop + clientHeight) this.frame.scrollTop = top + CELL.h - clientHeight;
  }

  typed(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const page = this.columns * Math.max(1, Math.floor(this.frame.clientHeight / CELL.h));
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, PageUp: -page, PageDown: page, Home: -this.size, End: this.size };
    if (event.key === "Enter") this.put();
    else if (!(event.key in steps)) return;
    else {
      const rank = (this.code === null ? -1 : this.ranks[this.code]) + steps[event.key];
      this.choose(this.order[Math.max(0, Math.min(this.size - 1, rank))]);
    }
    event.preventDefault();
  }

  // ---------------------------------------------------------------- drawing

  // Draw once before the next frame is shown.
  soon() {
    this.frameAsked ??= requestAnimationFrame(() => {
      this.frameAsked = null;
      this.draw();
    });
  }

  draw() {
    const { clientWidth: width, clientHeight: height, scrollTop } = this.frame;
    if (!width || !this.order) return;
    const { columns, canvas } = this;
    const scale = window.devicePixelRatio || 1;
    this.frame.firstElementChild.style.height = `${Math.ceil(this.size / columns) * CELL.h}px`;
    [canvas.width, canvas.height, canvas.style.height] = [Math.round(width * scale), Math.round(height * scale), `${height}px`];
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    context.imageSmoothingEnabled = false;
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "center";
    const colours = Object.fromEntries(["ink", "faint", "line", "accent"].map((name) => [name, this.colour(name)]));
    const [first, last] = [Math.floor(scrollTop / CELL.h) * columns, Math.ceil((scrollTop + height) / CELL.h) * columns];
    this.wanted = [];
    for (let rank = first; rank < Math.min(last, this.size); rank++) {
      const x = Math.round(((rank % columns) + 0.5) * (width / columns) - CELL.tile / 2);
      this.drawTile(context, this.order[rank], x, Math.floor(rank / columns) * CELL.h - scrollTop + 6, colours);
    }
    this.load();
  }

  colour(name) {
    this.probe ??= Object.assign(this.frame.appendChild(document.createElement("i")), { hidden: true });
    this.probe.style.color = `var(--${name})`;
    return getComputedStyle(this.probe).color;
  }

  drawTile(context, code, x, y, colours) {
    const unused = !this.uses[code];
    const slot = this.slot(code);
    context.globalAlpha = unused ? 0.35 : 1;
    if (this.held[slot] === code) {
      const { x: from, y: top } = this.corner(slot);
      context.drawImage(this.atlas, from, top, ABOUT.stride, ABOUT.stride, x, y, CELL.tile, CELL.tile);
    } else {
      context.fillStyle = colours.line;
      context.fillRect(x, y, CELL.tile, CELL.tile);
      this.wanted.push(code);
    }
    context.globalAlpha = 1;
    if (unused) {
      context.strokeStyle = colours.faint;
      context.lineWidth = 1;
      context.beginPath();
      context.moveTo(x, y + CELL.tile);
      context.lineTo(x + CELL.tile, y);
      context.stroke();
    }
    if (code === this.code) {
      context.strokeStyle = colours.accent;
      context.lineWidth = 3;
      context.strokeRect(x - 1.5, y - 1.5, CELL.tile + 3, CELL.tile + 3);
    }
    context.fillStyle = unused ? colours.faint : colours.ink;
    context.fillText(code, x + CELL.tile / 2, y + CELL.tile + 12);
  }

  // ---------------------------------------------------------------- tiles

  // No tile is known any more: other codebooks have other codes beside these.
  forget(others) {
    this.others = others;
    this.slots = Math.min(this.size, Math.floor(ATLAS_PIXELS / ABOUT.stride ** 2));
    this.across = Math.ceil(Math.sqrt(this.slots));
    const side = this.across * ABOUT.stride;
    this.atlas = new OffscreenCanvas(side, side);
    this.held = new Int32Array(this.slots).fill(-1);
  }

  slot(code) {
    return this.slots < this.size ? this.ranks[code] % this.slots : code;
  }

  corner(slot) {
    return { x: (slot % this.across) * ABOUT.stride, y: Math.floor(slot / this.across) * ABOUT.stride };
  }

  // Decode the tiles in sight that are missing, a few at a time, so that other work comes between.
  async load() {
    if (this.loading || ABOUT.fixed_size) return; // one size alone has no tiles
    this.loading = true;
    try {
      while (this.wanted.length) await this.loadSome();
    } finally {
      this.loading = false;
    }
  }

  async loadSome() {
    const { atlas } = this;
    const codes = this.wanted.splice(0, Math.max(1, Math.floor(DECODED_PIXELS / (9 * ABOUT.stride ** 2))));
    const looks = await this.studio.model.looks(codes.map((code) => this.stack(code)));
    if (atlas !== this.atlas) return; // of other codes beside these
    const context = atlas.getContext("2d");
    codes.forEach((code, index) => {
      const slot = this.slot(code);
      const { x, y } = this.corner(slot);
      context.putImageData(looks[index], x, y);
      this.held[slot] = code;
    });
    this.soon();
    await new Promise((done) => requestAnimationFrame(done)); // which tells anew what is wanted
  }
}

inRoom("codebook", (studio) => (studio.codebook ??= new Codebook(studio)).show());
