// The server that the page came from, where it came from one; a page that was opened from disk has none.

class Server {
  // What there is: models, by /v1/models.
  static async find() {
    const server = new Server();
    server.models = location.protocol === "file:" ? [] : await server.get("models").catch(() => []);
    return server;
  }

  get there() {
    return this.models.length > 0;
  }

  get tokenizers() {
    return this.models.filter((model) => model.kind !== "prior");
  }

  // The name of the page's own tokenizer.
  get own() {
    return this.tokenizers.find((model) => model.model_hash === ABOUT.model_hash)?.name ?? "";
  }

  // The first prior of the page's own tokenizer.
  get prior() {
    return this.models.find((model) => model.kind === "prior" && model.tokenizer_hash === ABOUT.model_hash);
  }

  has(what) {
    return !what || (what === "prior" ? Boolean(this.prior) : this.there);
  }

  get headers() {
    const token = sessionStorage.getItem("token");
    return token ? { Authorization: `Bearer ${token}` } : {};
  }

  async get(act) {
    return (await this.answered(fetch(`v1/${act}`, { headers: this.headers }))).json();
  }

  // The answer to a body: a Blob or File as it is, anything else as JSON.
  async post(act, body, query = {}) {
    const raw = body instanceof Blob;
    const headers = { ...this.headers, ...(raw ? {} : { "Content-Type": "application/json" }) };
    const address = `v1/${act}?${new URLSearchParams(query)}`;
    return this.answered(fetch(address, { method: "POST", headers, body: raw ? body : JSON.stringify(body) }));
  }

  async answered(asked) {
    const answer = await asked;
    if (answer.ok) return answer;
    const { detail } = await answer.json().catch(() => ({}));
    throw new Error(typeof detail === "string" ? detail : `the server says ${answer.status}`);
  }
}
