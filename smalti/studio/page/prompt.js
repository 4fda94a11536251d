// What a prior is asked with: which prior, a text or a label, guidance, temperature, a seed. Rooms that ask one have one each.

const LARGEST_SEED = 2 ** 31;

class Prompt {
  constructor(element, priors, guidance) {
    this.element = element;
    this.priors = priors;
    element.innerHTML = `
      <label class="field" data-for="prior">Prior <select name="prior"></select></label>
      <label class="field wide" data-for="text">Text <input type="text" name="text" maxlength="1000" autocomplete="off" placeholder="nothing in particular"></label>
      <label class="field" data-for="label">Label <select name="label"></select></label>
      <label class="field" data-for="guidance">Guidance <output></output>
        <input type="range" name="guidance" min="1" max="8" step="0.5" value="${guidance}"></label>
      <label class="field">Temperature <output></output>
        <input type="range" name="temperature" min="0" max="1.5" step="0.05" value="1"></label>
      <span class="field"><label>Seed <input type="number" name="seed" min="0" step="1" value="0"></label>
        <button type="button" name="dice" class="quiet" title="Another seed" aria-label="Another seed">&#9861;</button></span>`;
    priors.forEach((prior, index) => this.get("prior").add(new Option(prior.name, index)));
    this.get("prior").addEventListener("change", () => this.show());
    this.get("dice").addEventListener("click", () => (this.get("seed").value = Math.floor(Math.random() * LARGEST_SEED)));
    element.addEventListener("input", () => this.tell());
    this.show();
  }

  get(name) {
    return this.element.querySelector(`[name="${name}"]`);
  }

  get prior() {
    return this.priors[Number(this.get("prior").value)];
  }

  // What is of use with this prior is shown.
  show() {
    const { prior } = this;
    const label = this.get("label");
    const none = prior.guidance ? [new Option("any", "")] : []; // a prior that was always told cannot do without
    label.replaceChildren(...none, ...prior.labels.map((name) => new Option(name)));
    const used = { prior: this.priors.length > 1, text: prior.text, label: prior.labels.length > 0, guidance: prior.guidance };
    for (const part of this.element.querySelectorAll("[data-for]")) part.hidden = !used[part.dataset.for];
    this.tell();
  }

  tell() {
    this.get("guidance").disabled = !this.words;
    for (const range of this.element.querySelectorAll('[type="range"]')) {
      range.parentElement.querySelector("output").textContent = range.value;
    }
  }

  // The text or the label; empty where there is none.
  get words() {
    if (this.prior.text) return this.get("text").value.trim();
    return this.prior.labels.length ? this.get("label").value : "";
  }

  get seed() {
    const seed = Math.floor(Number(this.get("seed").value));
    return seed >= 0 && seed <= Number.MAX_SAFE_INTEGER ? seed : 0;
  }

  // The condition, as a body has it.
  get condition() {
    if (!this.words) return {};
    return this.prior.text ? { text: this.words } : { label: this.words };
  }

  // All of it.
  get options() {
    const guidance = this.words && this.prior.guidance ? { guidance: Number(this.get("guidance").value) } : {};
    return { ...this.condition, ...guidance, temperature: Number(this.get("temperature").value) };
  }
}

// A picture of a server's answer on a button.
function pictured(button, base64, words) {
  const image = new Image();
  Object.assign(image, { src: `data:image/png;base64,${base64}`, alt: "" });
  button.replaceChildren(image);
  button.setAttribute("aria-label", words);
}

// One piece of work at a time, which a second button ends: run(async (signal) => ...).
class Work {
  constructor(stop, progress) {
    Object.assign(this, { stop, progress });
    stop.addEventListener("click", () => this.end());
  }

  end() {
    this.control?.abort();
  }

  async run(work) {
    this.end();
    const control = (this.control = new AbortController());
    this.stop.hidden = false;
    this.tell(0);
    try {
      await work(control.signal);
    } catch (error) {
      if (!control.signal.aborted) status(error.message);
    }
    if (control !== this.control) return; // another one has begun
    this.stop.hidden = this.progress.hidden = true;
  }

  tell(share) {
    this.progress.hidden = false;
    this.progress.value = share;
  }
}
