// Positions of the picture are brushed away, and the prior fills them: variants, of which one becomes the picture.

const VARIANTS = 8;

class Completion {
  constructor(studio) {
    this.studio = studio;
    this.prompt = new Prompt(find("complete-prompt"), studio.server.priors, 1);
    this.work = new Work(find("complete-stop"), find("complete-progress"));
    this.view = new Brush(find("complete-view"), { hover: (place) => this.point(place), change: () => this.enable() });
    this.view.side = Number(find("complete-brush").value);
    this.grids = []; // the picture that the variants are of, then they
    this.bits = null; // (h, w) of the picture
    this.listen();
  }

  listen() {
    const on = (name, act) => find(`complete-${name}`).addEventListener("click", act);
    on("all", () => this.view.set(() => 1));
    on("none", () => this.view.set(() => 0));
    on("invert", () => this.view.set((one) => 1 - one));
    on("back", (event) => {
      this.view.back = !this.view.back;
      event.currentTarget.setAttribute("aria-pressed", this.view.back);
    });
    on("undo", () => this.studio.travel(-1));
    on("redo", () => this.studio.travel(1));
    on("open", () => this.fit());
    on("surprise", () => this.surprise(!this.maps));
    find("complete-brush").addEventListener("change", (event) => (this.view.side = Number(event.target.value)));
    find("complete-prompt").addEventListener("submit", (event) => (event.preventDefault(), this.fill()));
    find("complete-prompt").addEventListener("change", (event) => ["prior", "text", "label"].includes(event.target.name) && this.follow());
    find("complete-view").addEventListener("keydown", (event) => event.key === "Enter" && this.fill());
  }

  get maps() {
    return find("complete-surprise").getAttribute("aria-pressed") === "true";
  }

  // Whether the picture's grid is the prior's.
  get fits() {
    const [h, w] = this.prompt.prior.grid;
    return this.studio.grid.h === h && this.studio.grid.w === w;
  }

  // Show the picture as it is now.
  follow() {
    const { grid, main } = this.studio;
    if (!grid) return;
    if (!this.grids.includes(grid)) this.list([grid], []);
    this.view.open(grid);
    this.view.pixels.getContext("2d").drawImage(main.pixels, 0, 0);
    for (const button of find("complete-variants").children) {
      button.setAttribute("aria-pressed", this.grids[Number(button.dataset.index)] === grid);
    }
    const [h, w] = this.prompt.prior.grid;
    find("complete-fit").hidden = this.fits;
    find("complete-fit").firstElementChild.textContent =
      `This picture has ${grid.w} × ${grid.h} codes; the prior knows pictures of ${w} × ${h}.`;
    find("complete-open").textContent = `Open its middle at ${ABOUT.image_size[1]} × ${ABOUT.image_size[0]} pixels`;
    this.enable();
    this.surprise(this.maps && this.fits && this.prompt.prior.surprise);
  }

  enable() {
    const { history, grid } = this.studio;
    find("complete-fill").disabled = !grid || !this.fits || !this.view.count;
    find("complete-surprise").disabled = !grid || !this.fits;
    find("complete-surprise").hidden = !this.prompt.prior.surprise;
    find("complete-undo").disabled = !history?.now;
    find("complete-redo").disabled = !history || history.now === history.states.length - 1;
  }

  // The same picture at the size that the prior knows.
  async fit() {
    const { file, main, name } = this.studio;
    const shown = file ?? new File([await new Promise((done) => main.pixels.toBlob(done))], name);
    await this.studio.open(shown, "main", ABOUT.image_size);
  }

  // ---------------------------------------------------------------- variants

  fill() {
    if (find("complete-fill").disabled) return;
    const { grid, server } = this.studio;
    const { prior, options, seed } = this.prompt;
    const body = { codes: nested(grid), keep: this.view.kept, num: VARIANTS, seed, ...options };
    return this.work.run(async (signal) => {
      const found = await server.stream("complete", body, { model: prior.name }, (share) => this.work.tell(share), signal);
      if (grid !== this.studio.grid) return status("The picture has changed meanwhile.");
      this.list([grid, ...found.codes.map((codes) => fromNested(codes, grid.size))], found.images);
      status(`${found.images.length} variants; take one.`);
    });
  }

  // A row of pictures, each of which can become the picture.
  list(grids, images) {
    this.grids = grids;
    find("complete-variants").replaceChildren(...images.map((image, index) => {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", className: "thumb" });
      button.dataset.index = index + 1;
      pictured(button, image, `Variant ${index + 1}`);
      button.addEventListener("click", () => this.take(this.grids[index + 1]));
      return button;
    }));
  }

  take(grid) {
    if (grid !== this.studio.grid) this.studio.step({ grid, place: whole(grid) });
  }

  // ---------------------------------------------------------------- surprise

  // Whether the bits of each position are shown; they are asked for again where the picture is another one.
  async surprise(wanted) {
    find("complete-surprise").setAttribute("aria-pressed", wanted);
    find("complete-bits").hidden = true;
    find("complete-view").classList.toggle("mapped", wanted);
    this.bits = this.view.heat = null;
    this.view.drawLines();
    if (!wanted) return;
    const { grid, server } = this.studio;
    const { prior, condition } = this.prompt;
    try {
      const found = await (await server.post("surprise", { codes: nested(grid), ...condition }, { model: prior.name })).json();
      if (grid === this.studio.grid && this.maps) this.map(found);
    } catch (error) {
      status(error.message);
      this.surprise(false);
    }
  }

  map({ bits, total }) {
    const layers = ABOUT.axes === "B h w" ? [bits] : bits;
    const { h, w } = this.studio.grid;
    this.bits = Array.from({ length: h * w }, (_, at) => layers.reduce((sum, rows) => sum + rows[Math.floor(at / w)][at % w], 0));
    const top = Math.max(...this.bits, layers.length * Math.log2(ABOUT.codebook_size)); // at least that of a code of fixed length
    this.view.heat = this.bits.map((own) => own / top);
    this.view.drawLines();
    find("complete-bits").hidden = false;
    find("complete-top").textContent = `${top.toFixed(1)} bits`;
    find("complete-total").textContent = `${total.toFixed(1)} bits = ${Math.ceil(total / 8)} bytes`;
    this.point(this.view.hovered);
  }

  point(place) {
    const bits = place && this.bits?.[place.y * this.view.grid.w + place.x];
    find("complete-here").textContent = bits === undefined || bits === null ? "" : `row ${place.y + 1}, column ${place.x + 1}: ${bits.toFixed(1)} bits`;
  }
}

inRoom("complete", (studio) => (studio.completion ??= new Completion(studio)).follow());
