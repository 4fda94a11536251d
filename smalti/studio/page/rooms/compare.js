// The room in which a picture lies beside what models make of it: a wipe between two, and where they differ.

const ORIGINAL = "original";
const HERE = "here"; // what the first room shows: the codes of this page's model, perhaps changed by hand
const MOST_MODELS = 4;
const HEAT = [[0, 0, 0, 4], [0.25, 86, 16, 110], [0.5, 187, 55, 84], [0.75, 249, 140, 10], [1, 252, 255, 164]]; // see `colourOf`

class Compare {
  constructor(studio) {
    this.studio = studio;
    this.others = studio.server.tokenizers.filter((model) => model.model_hash !== ABOUT.model_hash).map((model) => model.name);
    this.cards = new Map([HERE, ...this.others.slice(0, MOST_MODELS - 1)].map((name) => [name, this.card(name)]));
    this.selects = { left: find("compare-left"), right: find("compare-right") };
    for (const [side, select] of Object.entries(this.selects)) {
      for (const name of [ORIGINAL, HERE, ...this.others]) select.add(new Option(this.label(name), name));
      select.value = side === "left" ? ORIGINAL : HERE;
      select.addEventListener("change", () => this.draw());
    }
    find("compare-gain").addEventListener("change", () => this.draw());
    this.listen(find("wipe"));
    this.to(50);
  }

  label(name) {
    if (name === ORIGINAL) return "the original";
    return name === HERE ? this.studio.server.own || "this model" : name;
  }

  // A model in the row below: a press takes it to the right side.
  card(name) {
    const card = document.createElement("button");
    card.type = "button";
    card.innerHTML = "<canvas></canvas><span></span><span></span>";
    card.children[1].textContent = this.label(name);
    card.addEventListener("click", () => {
      this.selects.right.value = name;
      this.draw();
    });
    find("through").append(card);
    return card;
  }

  // ---------------------------------------------------------------- pictures

  async show() {
    const { original, main } = this.studio;
    if (original !== this.original) this.found = new Map();
    this.original = original;
    this.found.set(ORIGINAL, original);
    this.found.set(HERE, pixelsOf(main.pixels));
    for (const place of [find("wipe"), find("difference")]) place.style.setProperty("--ratio", original.width / original.height);
    await this.draw();
    for (const [name, card] of this.cards) {
      const pixels = await this.pixels(name);
      if (original !== this.original) return; // another picture is open by now
      if (pixels) fill(card.firstChild, pixels);
      card.lastChild.textContent = pixels ? decibels(psnrDb(pixels, original)) : this.refusal;
    }
  }

  // What is on a side; null where the server refuses.
  async pixels(name) {
    const { original, found } = this;
    if (!found.has(name)) {
      const asked = asPng(original).then((png) => this.studio.server.post("reconstruct", png, { model: name }));
      found.set(name, asked.then((answer) => answer.blob()).then(pixelsIn).catch((error) => {
        this.refusal = error.message;
        found.delete(name);
        return null;
      }));
    }
    return found.get(name);
  }

  async draw() {
    const turn = (this.turn = {});
    const names = [this.selects.left.value, this.selects.right.value];
    const [left, right] = await Promise.all(names.map((name) => this.pixels(name)));
    if (turn !== this.turn) return; // another choice by now
    if (!left || !right) return status(this.refusal);
    fill(find("compare-under"), left);
    fill(find("compare-over"), right);
    for (const [side, name, pixels] of [["left", names[0], left], ["right", names[1], right]]) {
      const far = name === ORIGINAL ? "" : `, ${decibels(psnrDb(pixels, this.original))}`;
      find(`compare-${side}-about`).textContent = `${side}: ${this.label(name)}${far}`;
    }
    for (const [name, card] of this.cards) card.setAttribute("aria-pressed", name === names[1]);
    fill(find("difference").firstChild, differenceOf(left, right, Number(find("compare-gain").value)));
  }

  // ---------------------------------------------------------------- the wipe

  // Put the edge at a place, in hundredths of the width.
  to(place) {
    this.place = Math.max(0, Math.min(100, place));
    const wipe = find("wipe");
    wipe.style.setProperty("--edge", `${this.place}%`);
    wipe.setAttribute("aria-valuenow", Math.round(this.place));
  }

  listen(wipe) {
    const follow = (event) => {
      const box = wipe.getBoundingClientRect();
      this.to((100 * (event.clientX - box.left)) / box.width);
    };
    wipe.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      wipe.setPointerCapture(event.pointerId);
      this.held = true;
      follow(event);
    });
    wipe.addEventListener("pointermove", (event) => this.held && follow(event));
    for (const end of ["pointerup", "pointercancel"]) wipe.addEventListener(end, () => (this.held = false));
    wipe.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 10 : 1;
      const goal = { ArrowLeft: this.place - step, ArrowRight: this.place + step, Home: 0, End: 100 }[event.key];
      if (goal === undefined) return;
      event.preventDefault();
      this.to(goal);
    });
  }
}

// How far two pictures are apart, from black to light yellow.
function differenceOf(one, other, gain) {
  const found = new ImageData(one.width, one.height);
  for (let at = 0; at < found.data.length; at += 4) {
    let sum = 0;
    for (let channel = 0; channel < 3; channel++) sum += Math.abs(one.data[at + channel] - other.data[at + channel]);
    found.data.set([...colourOf((gain * sum) / 765, HEAT), 255], at);
  }
  return found;
}

inRoom("compare", (studio) => (studio.compare ??= new Compare(studio)).show());
