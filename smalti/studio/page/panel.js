// What is known of a position: its code, how that looks, and the codes whose vectors are nearest to it.

const NEIGHBOURS = 8;

class Panel {
  constructor(element, choose) {
    this.element = element;
    this.choose = choose; // (code) => of the layer that is shown
    this.layer = 0;
    this.asked = 0;
    this.input = element.querySelector("#code");
    this.input.max = ABOUT.codebook_size - 1;
    this.input.addEventListener("change", () => this.given());
    this.buttons = Array.from({ length: NEIGHBOURS }, (_, index) => this.button(index));
    this.layers = element.querySelector("#layers");
    this.layers.hidden = ABOUT.num_codebooks === 1;
    for (let layer = 0; layer < ABOUT.num_codebooks; layer++) {
      const option = new Option(`codebook ${layer + 1} of ${ABOUT.num_codebooks}`, layer);
      this.layers.querySelector("select").add(option);
    }
    this.layers.querySelector("select").addEventListener("change", (event) => {
      this.layer = Number(event.target.value);
      this.again();
    });
  }

  button(index) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "tile";
    button.innerHTML = "<canvas></canvas><span></span>";
    button.title = `Take this code (key ${index + 1})`;
    button.addEventListener("click", () => this.take(index));
    this.element.querySelector("#nearest").append(button);
    return button;
  }

  // The code at this place of the list becomes that of the selection.
  take(index) {
    if (this.near?.[index] !== undefined) this.choose(this.near[index], this.layer);
  }

  given() {
    const code = Number(this.input.value);
    if (Number.isInteger(code) && code >= 0 && code < ABOUT.codebook_size) this.choose(code, this.layer);
    else this.input.value = this.stack?.[this.layer] ?? "";
  }

  again() {
    if (this.model) this.show(this.model, this.grid, this.place);
  }

  // Show a position of a grid; of several, the first.
  async show(model, grid, place) {
    Object.assign(this, { model, grid, place });
    this.element.classList.toggle("empty", !place);
    if (!place) return;
    const turn = ++this.asked;
    const stack = grid.at(place.x, place.y);
    const many = (place.w ?? 1) * (place.h ?? 1);
    const where = `row ${place.y + 1}, column ${place.x + 1}`;
    this.element.querySelector("#where").textContent = many > 1 ? `${place.w} × ${place.h} positions from ${where}` : where;
    this.stack = stack;
    this.input.value = stack[this.layer];
    this.near = model.nearest(stack[this.layer], this.layer, NEIGHBOURS);
    const stacks = [stack, ...this.near.map((code) => stack.with(this.layer, code))];
    const looks = await model.looks(stacks);
    if (turn !== this.asked) return; // another position is shown by now
    const own = this.element.querySelector("#tile");
    const canvases = [own, ...this.buttons.map((button) => button.firstChild)];
    canvases.forEach((canvas, index) => fill(canvas, looks[index]));
    this.buttons.forEach((button, index) => {
      button.hidden = this.near[index] === undefined;
      button.lastChild.textContent = this.near[index];
      button.setAttribute("aria-label", `Take code ${this.near[index]}`);
    });
  }
}
