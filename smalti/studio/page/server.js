// The server that the page came from, where it came from one; a page that was opened from disk has none.

class Server {
  // What there is: models, by /v1/models.
  static async find() {
    const server = new Server();
    Server.keepToken();
    server.models = location.protocol === "file:" ? [] : await server.get("models").catch(() => []);
    find("api").hidden = !server.there;
    return server;
  }

  // A token is given once, behind the # of the address, which is sent to nobody.
  static keepToken() {
    const token = new URLSearchParams(location.hash.slice(1)).get("token");
    if (!token) return;
    sessionStorage.setItem("token", token);
    history.replaceState(null, "", location.pathname + location.search);
  }

  get there() {
    return this.models.length > 0;
  }

  // Those of the page's own tokenizer.
  get priors() {
    return this.models.filter((model) => model.kind === "prior" && model.tokenizer_hash === ABOUT.model_hash);
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
    return this.priors[0];
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
  async post(act, body, query = {}, signal = undefined) {
    const raw = body instanceof Blob;
    const headers = { ...this.headers, ...(raw ? {} : { "Content-Type": "application/json" }) };
    const address = `v1/${act}?${new URLSearchParams(query)}`;
    return this.answered(fetch(address, { method: "POST", headers, body: raw ? body : JSON.stringify(body), signal }));
  }

  // The result of work that takes long, which is told how far it is: tell(share). The signal ends it.
  async stream(act, body, query, tell, signal) {
    const answer = await this.post(act, body, query, signal);
    const parts = answer.body.pipeThrough(new TextDecoderStream());
    let rest = "";
    let last = {};
    for (const reader = parts.getReader(); ; ) {
      const { done, value } = await reader.read();
      const lines = (rest + (value ?? "")).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        last = JSON.parse(line);
        if (last.of) tell(last.progress / last.of);
      }
      if (done) break;
    }
    if (last.error || !last.codes) throw new Error(last.error ?? "the server ended before it was done");
    return last;
  }

  async answered(asked) {
    const answer = await asked;
    if (answer.ok) return answer;
    const { detail } = await answer.json().catch(() => ({}));
    throw new Error(typeof detail === "string" ? detail : `the server says ${answer.status}`);
  }
}
