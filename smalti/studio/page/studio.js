// The acts of the first room. Each changes the codes by one step of the history, and then the pixels that they reach.

const whole = (grid) => ({ x: 0, y: 0, w: grid.w, h: grid.h });

class Studio {
  constructor(model) {
    this.model = model;
    this.name = "picture";
    this.main = new View(find("main"), {
      hover: (place) => this.shown(place),
      select: () => this.shown(null),
      lift: (event, held) => this.lift(this.main, this.grid, event, held),
    });
    this.other = new View(find("other"), {
      hover: () => {},
      select: () => this.enable(),
      lift: (event, held) => this.lift(this.other, this.otherGrid, event, held),
    });
    this.panel = new Panel(find("panel"), (code, layer) => this.setCode(code, layer));
    this.listen();
  }

  get grid() {
    return this.history?.grid;
  }

  // ---------------------------------------------------------------- acts

  // A picture; with `middle`, [H, W], its middle at that size.
  async open(file, which = "main", middle = null) {
    status("Reading …");
    try {
      const { pixels, grid } = await this.read(file, middle);
      if (which === "other") {
        this.otherGrid = grid;
        this.other.open(grid);
        this.other.put((await this.model.decode([grid]))[0]);
        find("add").hidden = true;
        this.enable();
        return status("Drag over the second picture to select codes, then drag them onto the first.");
      }
      const name = (file.name ?? "picture").replace(/\.\w+$/, "") || "picture";
      await this.begin(grid, name, pixels, file);
    } catch (error) {
      status(`This is no picture that the page can read (${error.message}).`);
    }
  }

  // Codes that came from elsewhere than from a file, as a new picture.
  async show(grid, name) {
    const [pixels] = await this.model.decode([grid]);
    await this.begin(grid, name, pixels, null);
  }

  async begin(grid, name, original, file) {
    Object.assign(this, { name, original, file, first: grid, history: new History(grid) });
    this.main.open(grid);
    await this.redraw(whole(grid));
    this.report();
  }

  // The pixels of a file and its codes; a .smalti file may have them already.
  async read(file, middle = null) {
    const limit = Number(find("limit").value);
    const { image, grid } = isArchive(file) ? await unpacked(file, this.server) : { image: file };
    const known = grid && !middle && Math.max(...grid.size) <= limit;
    const pixels = await readPixels(image, limit, middle);
    return { pixels, grid: known ? grid : await this.model.encode(pixels) };
  }

  // One step: another grid, of which a place differs.
  async step(changed) {
    if (!changed) return;
    this.history.push(changed.grid);
    await this.redraw(changed.place);
    this.report();
  }

  setCode(code, layer) {
    const place = this.main.selection;
    return place && this.step(this.grid.filled(place, layer, code));
  }

  // Codes of a grid at a position of the first picture, which then are the selection.
  async place(part, x, y) {
    const changed = this.grid.with(part, x, y);
    if (changed) this.main.selection = changed.place;
    await this.step(changed);
  }

  async travel(step) {
    if (!this.history?.move(step)) return;
    await this.redraw(whole(this.grid));
    this.report();
  }

  async redraw(place) {
    const started = performance.now();
    const grid = this.grid;
    const { pixels, x, y } = await this.model.decodeAround(grid, place);
    if (grid !== this.grid) return; // a later act draws
    this.main.put(pixels, x, y);
    this.took = performance.now() - started;
    this.main.grid = grid;
    this.main.drawLines();
    this.shown(null);
    document.dispatchEvent(new Event("picture")); // for the other rooms
  }

  // ---------------------------------------------------------------- what is shown

  shown(hovered) {
    if (this.grid) this.panel.show(this.model, this.grid, hovered ?? this.main.selection);
    this.enable();
  }

  report() {
    const { h, w, size } = this.grid;
    const changed = this.grid.differences(this.first);
    const words = changed ? `, ${changed} changed` : "";
    status(`${size[1]} × ${size[0]} pixels as ${w} × ${h} codes${words}`);
    this.enable();
  }

  enable() {
    find("undo").disabled = !this.history?.now;
    find("redo").disabled = !this.history || this.history.now === this.history.states.length - 1;
    for (const name of ["copy", "paste", "npz", "png", "smalti", "original", "lines"]) find(name).disabled = !this.grid;
    find("put").hidden = !this.otherGrid;
    find("put").disabled = !this.other.selection || !this.main.selection;
  }

  showOriginal(yes) {
    if (!this.grid) return;
    find("original").setAttribute("aria-pressed", yes);
    if (yes) this.main.put(this.original);
    else this.redraw(whole(this.grid));
  }

  // ---------------------------------------------------------------- dragging codes

  // Selected codes follow the pointer until they are dropped on the first picture.
  lift(view, grid, event, held) {
    const part = grid.part(view.selection);
    const ghost = find("ghost");
    this.drawGhost(ghost, view);
    const move = (moved) => {
      ghost.style.translate = `${moved.clientX}px ${moved.clientY}px`;
      const at = this.main.position(moved);
      const over = this.main.inside(at);
      this.main.target = over ? { x: at.x - held.x, y: at.y - held.y, w: part.w, h: part.h } : null;
      this.main.drawLines();
    };
    const drop = (dropped) => {
      document.removeEventListener("pointermove", move);
      for (const end of ["pointerup", "pointercancel"]) document.removeEventListener(end, drop);
      ghost.hidden = true;
      const target = this.main.target;
      this.main.target = null;
      this.main.drawLines();
      if (dropped.type === "pointerup" && target) this.place(part, target.x, target.y);
    };
    ghost.hidden = false;
    document.addEventListener("pointermove", move);
    for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, drop);
    move(event);
  }

  drawGhost(ghost, view) {
    const { x, y, w, h } = view.selection;
    const side = ABOUT.fixed_size ? ABOUT.fixed_size[1] / view.grid.w : ABOUT.stride;
    [ghost.width, ghost.height] = [w * side, h * side];
    ghost.getContext("2d").drawImage(view.pixels, x * side, y * side, w * side, h * side, 0, 0, w * side, h * side);
    const scale = view.pixels.getBoundingClientRect().width / view.pixels.width;
    ghost.style.width = `${w * side * scale}px`;
  }

  // ---------------------------------------------------------------- clipboard and files

  copied() {
    const place = this.main.selection;
    const part = place && place.w * place.h > 1 ? this.grid.part(place) : this.grid;
    status(`${part.w} × ${part.h} codes are in the clipboard.`);
    return asJson(part);
  }

  async pasted(text) {
    try {
      const part = fromJson(text);
      const same = part.w === this.grid.w && part.h === this.grid.h;
      const at = same || !this.main.selection ? { x: 0, y: 0 } : this.main.selection;
      await this.place(part, at.x, at.y);
    } catch (error) {
      status(error.message);
    }
  }

  savePng() {
    this.main.pixels.toBlob((blob) => save(blob, `${this.name}.png`));
  }

  async saveArchive() {
    try {
      const file = await this.server.post("compress", asValue(this.grid), { model: this.server.own });
      save(await file.blob(), `${this.name}.smalti`);
    } catch (error) {
      status(error.message);
    }
  }

  // What a server has is asked for where there is one.
  meet(server) {
    this.server = server;
    find("smalti").hidden = !server.there;
    if (server.there) for (const name of ["file", "second"]) find(name).accept += ",.smalti";
  }

  // ---------------------------------------------------------------- events

  listen() {
    const on = (name, act) => find(name).addEventListener("click", act);
    on("undo", () => this.travel(-1));
    on("redo", () => this.travel(1));
    on("copy", () => navigator.clipboard.writeText(this.copied()));
    on("paste", async () => this.pasted(await navigator.clipboard.readText().catch(() => "")));
    on("npz", () => save(asNpz(this.grid, `${this.name}.png`), `${this.name}.npz`));
    on("png", () => this.savePng());
    on("smalti", () => this.saveArchive());
    on("put", () => this.place(this.otherGrid.part(this.other.selection), this.main.selection.x, this.main.selection.y));
    on("lines", (event) => {
      const shows = (this.main.showsGrid = this.other.showsGrid = !this.main.showsGrid);
      event.currentTarget.setAttribute("aria-pressed", shows);
      for (const view of [this.main, this.other]) view.drawLines();
    });
    const hold = find("original");
    hold.addEventListener("pointerdown", () => this.showOriginal(true));
    for (const end of ["pointerup", "pointerleave", "pointercancel"]) {
      hold.addEventListener(end, () => hold.getAttribute("aria-pressed") === "true" && this.showOriginal(false));
    }
    hold.addEventListener("keydown", (event) => event.key === " " && !event.repeat && this.showOriginal(true));
    hold.addEventListener("keyup", (event) => event.key === " " && this.showOriginal(false));
    for (const [name, which] of [["file", "main"], ["second", "other"]]) {
      find(name).addEventListener("change", (event) => {
        const [file] = event.target.files;
        event.target.value = ""; // the same file may be asked for again
        if (file) this.open(file, which);
      });
    }
    find("limit").addEventListener("change", () => this.file && this.open(this.file));
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      const which = event.target.closest?.("#second-room") ? "other" : "main";
      if (event.dataTransfer.files[0]) this.open(event.dataTransfer.files[0], which);
    });
    document.addEventListener("keydown", (event) => this.typed(event));
    document.addEventListener("copy", (event) => {
      if (!this.grid || typing(event)) return;
      event.clipboardData.setData("text/plain", this.copied());
      event.preventDefault();
    });
    document.addEventListener("paste", (event) => {
      if (!this.grid || typing(event)) return;
      const [file] = event.clipboardData.files;
      if (file) this.open(file);
      else this.pasted(event.clipboardData.getData("text/plain"));
      event.preventDefault();
    });
  }

  typed(event) {
    if (typing(event)) return;
    const control = event.ctrlKey || event.metaKey;
    const key = event.key.toLowerCase();
    if (control && key === "z") this.travel(event.shiftKey ? 1 : -1);
    else if (control && key === "y") this.travel(1);
    else if (control || event.altKey || this.rooms?.now !== "edit") return;
    else if (key >= "1" && key <= "8") this.panel.take(Number(key) - 1);
    else if (key === "g") find("lines").click();
    else return;
    event.preventDefault();
  }
}

const typing = (event) => event.target.matches?.('input:not([type="file"], [type="range"]), select, textarea');

async function begin() {
  try {
    const model = await Model.open();
    const studio = (window.studio = new Studio(model));
    studio.meet(await Server.find());
    await studio.open(new File([await part("picture")], "mosaic.png", { type: "image/png" }));
    studio.rooms = new Rooms(studio.server);
    document.body.classList.add("ready");
  } catch (error) {
    status(`This browser cannot run the model: ${error.message}`);
    throw error;
  }
}

begin();
