// Pictures from a text or a label, one after another; each has a seed, with which it can be had again, and opens in the editor.

const MOST_ROWS = 12;

class TextToImage {
  constructor(studio) {
    this.studio = studio;
    this.prompt = new Prompt(find("text-prompt"), studio.server.priors, 2);
    this.work = new Work(find("text-stop"), find("text-progress"));
    find("text-form").addEventListener("submit", (event) => (event.preventDefault(), this.sample()));
  }

  sample() {
    const { prior, options, seed, words } = this.prompt;
    const count = Number(find("text-count").value);
    const row = this.row(words || prior.name, count);
    const thumbs = [...row.querySelectorAll("button")];
    return this.work.run(async (signal) => {
      try {
        for (const [index, thumb] of thumbs.entries()) {
          const tell = (share) => this.work.tell((index + share) / count);
          const body = { num: 1, seed: seed + index, ...options };
          const found = await this.studio.server.stream("sample", body, { model: prior.name }, tell, signal);
          this.fill(thumb, found, words || prior.name, seed + index);
        }
        status(`${count} pictures; click one to edit it.`);
      } finally {
        for (const thumb of thumbs) if (thumb.disabled) thumb.parentElement.remove();
        if (!row.querySelector("img")) row.remove();
      }
    });
  }

  // Places for the pictures of a prompt, above those of earlier ones.
  row(words, count) {
    const row = document.createElement("section");
    const title = document.createElement("h2");
    title.textContent = words;
    const thumbs = document.createElement("div");
    thumbs.className = "thumbs";
    for (let index = 0; index < count; index++) {
      const figure = document.createElement("figure");
      figure.innerHTML = '<button type="button" class="thumb" disabled></button><figcaption>&nbsp;</figcaption>';
      thumbs.append(figure);
    }
    row.append(title, thumbs);
    find("text-results").prepend(row);
    while (find("text-results").children.length > MOST_ROWS) find("text-results").lastChild.remove();
    return row;
  }

  fill(thumb, found, words, seed) {
    const grid = fromNested(found.codes[0], ABOUT.image_size);
    pictured(thumb, found.images[0], `Edit ${words}, seed ${seed}`);
    thumb.disabled = false;
    thumb.title = "Edit its codes";
    thumb.parentElement.lastElementChild.textContent = `seed ${seed}`;
    thumb.addEventListener("click", async () => {
      await this.studio.show(grid, `${words} ${seed}`.replace(/[^\p{L}\p{N}]+/gu, "-"));
      this.studio.rooms.enter("edit");
    });
  }
}

inRoom("text", (studio) => (studio.textToImage ??= new TextToImage(studio)));
