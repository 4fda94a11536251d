// The room of files: what each coder makes of the picture, beside other formats with as many bytes. A server does it.

const CODERS = { fixed: "fixed length", histogram: "histogram", adaptive: "adaptive", prior: "prior" };
const many = (bytes) => `${bytes.toLocaleString("en")} bytes`;

class Compress {
  constructor(studio) {
    this.studio = studio;
    this.coder = "adaptive";
    this.place = { x: 50, y: 50 }; // of what is magnified, in hundredths
    this.coders = Object.entries(CODERS).map(([name, words]) => this.choice(name, words));
    this.depth = find("compress-depth").lastElementChild;
    this.depth.addEventListener("change", () => this.ask());
    find("compress-save").addEventListener("click", () => this.save());
    find("compress-zoom").addEventListener("change", (event) => find("formats").style.setProperty("--zoom", event.target.value));
    find("formats").style.setProperty("--zoom", find("compress-zoom").value);
  }

  choice(name, words) {
    const label = document.createElement("label");
    label.className = "coder";
    label.innerHTML = `<input type="radio" name="coder" value="${name}"><b>${words}</b><span></span><i aria-hidden="true"></i>`;
    label.firstChild.addEventListener("change", () => {
      this.coder = name;
      this.ask();
    });
    find("coders").append(label);
    return label;
  }

  get options() {
    const depth = this.depth.value ? { depth: this.depth.value } : {};
    return { model: this.studio.server.own, coder: this.coder, alpha: "drop", ...depth };
  }

  // Another picture, or none yet.
  async show() {
    if (this.original === this.studio.original && !this.failed) return;
    this.original = this.studio.original;
    this.png = await asPng(this.original);
    await this.ask();
  }

  async ask() {
    const { server } = this.studio;
    const turn = (this.turn = {});
    status("Compressing …");
    find("compress-save").disabled = true;
    try {
      const found = await (await server.post("formats", this.png, this.options)).json();
      const pictures = await Promise.all([found.smalti, ...Object.values(found.rivals)].map((one) => pixelsIn(blobOf(one.png))));
      if (turn !== this.turn) return; // something else is asked for by now
      this.found = found;
      this.draw(pictures);
      this.refused("");
    } catch (error) {
      if (turn === this.turn) this.refused(error.message);
    }
    if (turn === this.turn) this.studio.report();
  }

  // Why there is no file, or "".
  refused(words) {
    this.failed = Boolean(words);
    find("compress-refused").textContent = words;
    find("compress-refused").hidden = !this.failed;
    find("compress-found").hidden = this.failed && !this.found;
  }

  async save() {
    try {
      const file = await (await this.studio.server.post("compress", this.png, this.options)).blob();
      save(file, `${this.studio.name}.smalti`);
      status(`${this.studio.name}.smalti has ${many(file.size)}.`);
    } catch (error) {
      this.refused(error.message);
    }
  }

  // ---------------------------------------------------------------- what was found

  draw(pictures) {
    const { coders, smalti, rivals, depth, depths } = this.found;
    const largest = Math.max(...Object.values(coders).map((one) => one.num_bytes ?? 0));
    for (const label of this.coders) {
      const [input, , words, bar] = label.children;
      const one = coders[input.value];
      input.disabled = !one.num_bytes;
      input.checked = input.value === smalti.coder;
      words.textContent = one.refused ?? `${many(one.num_bytes)}, ${one.bits_per_pixel.toFixed(3)} bits per pixel`;
      bar.style.setProperty("--share", `${(100 * (one.num_bytes ?? 0)) / largest}%`);
    }
    const choices = depths > 1 ? depths : 0;
    find("compress-depth").hidden = !choices;
    this.depth.replaceChildren(...Array.from({ length: choices }, (_, index) => new Option(`${index + 1} of ${depths}`, index + 1)));
    if (choices) this.depth.value = depth;
    find("compress-save").textContent = `Save .smalti, ${many(smalti.num_bytes)}`;
    find("compress-save").disabled = false;
    const about = [
      ["original", [`${this.original.width} × ${this.original.height} pixels`]],
      [`.smalti, ${CODERS[smalti.coder]}`, [sizeOf(smalti), decibels(smalti.psnr_db)]],
      ...Object.entries(rivals).map(([name, one]) => [name, [sizeOf(one), `${decibels(one.psnr_db)}, quality ${one.quality}`, one.fits ? "" : "its smallest, and larger"]]),
    ];
    find("formats").replaceChildren(...about.map(([name, lines], index) => this.figure(name, lines, [this.original, ...pictures][index])));
  }

  figure(name, lines, pixels) {
    const figure = document.createElement("figure");
    figure.innerHTML = '<div class="view" tabindex="0" role="application"><canvas class="pixels"></canvas></div><figcaption><b></b></figcaption>';
    const [view, caption] = figure.children;
    view.setAttribute("aria-label", `${name}, ${lines.join(", ")}. Arrow keys move what is magnified, Escape ends it.`);
    view.style.setProperty("--ratio", pixels.width / pixels.height);
    fill(view.firstChild, pixels);
    caption.firstChild.textContent = name;
    for (const line of lines.filter(Boolean)) caption.append(Object.assign(document.createElement("span"), { textContent: line }));
    const follow = (event) => {
      const box = view.getBoundingClientRect();
      this.magnify({ x: (100 * (event.clientX - box.left)) / box.width, y: (100 * (event.clientY - box.top)) / box.height });
    };
    for (const kind of ["pointermove", "pointerdown"]) view.addEventListener(kind, follow);
    view.addEventListener("pointerleave", () => this.magnify(null));
    view.addEventListener("blur", () => this.magnify(null));
    view.addEventListener("keydown", (event) => this.typed(event));
    return figure;
  }

  // All pictures at the same place, in hundredths of their sides; null ends it.
  magnify(place) {
    const formats = find("formats");
    formats.classList.toggle("near", Boolean(place));
    if (!place) return;
    this.place = { x: Math.max(0, Math.min(100, place.x)), y: Math.max(0, Math.min(100, place.y)) };
    for (const axis of ["x", "y"]) formats.style.setProperty(`--${axis}`, `${this.place[axis]}%`);
  }

  typed(event) {
    const step = { ArrowLeft: [-4, 0], ArrowRight: [4, 0], ArrowUp: [0, -4], ArrowDown: [0, 4], Escape: null }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    this.magnify(step && { x: this.place.x + step[0], y: this.place.y + step[1] });
  }
}

const sizeOf = (one) => `${many(one.num_bytes)}, ${one.bits_per_pixel.toFixed(3)} bits per pixel`;
const blobOf = (base64) => new Blob([bytesOf(base64)], { type: "image/png" });

inRoom("compress", (studio) => (studio.compress ??= new Compress(studio)).show());
