// The model: pixels to codes and codes to pixels, by ONNX Runtime in this page.
// Pixels are {data, width, height} as in ImageData; codes are a `Grid`, see grid.js.

class Model {
  static async open() {
    const source = new Blob([await part("ort")], { type: "text/javascript" });
    const ort = await import(URL.createObjectURL(source));
    ort.env.wasm.numThreads = 1; // more need headers that a file from disk has not
    ort.env.wasm.wasmBinary = await part("wasm");
    ort.env.logLevel = "error";
    const model = new Model();
    model.ort = ort;
    model.encoder = await ort.InferenceSession.create(await part("encoder"));
    model.decoder = await ort.InferenceSession.create(await part("decoder"));
    const bytes = await part("codebook");
    model.vectors = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    model.tiles = new Map();
    model.queue = Promise.resolve();
    return model;
  }

  get depth() {
    return ABOUT.num_codebooks;
  }

  // One run at a time: a session takes no second one meanwhile.
  run(session, tensor) {
    const name = session.inputNames[0];
    const next = this.queue.then(() => session.run({ [name]: tensor }));
    this.queue = next.catch(() => {});
    return next.then((results) => results[session.outputNames[0]]);
  }

  // The codes of pixels, which are padded to the stride by repeating the edge.
  async encode(pixels) {
    const [rows, columns] = ABOUT.fixed_size ?? [ABOUT.stride, ABOUT.stride];
    const height = Math.ceil(pixels.height / rows) * rows;
    const width = Math.ceil(pixels.width / columns) * columns;
    const values = new Float32Array(ABOUT.channels * height * width);
    for (let y = 0, at = 0; y < height; y++) {
      for (let x = 0; x < width; x++, at++) {
        const from = 4 * (Math.min(y, pixels.height - 1) * pixels.width + Math.min(x, pixels.width - 1));
        const [r, g, b] = pixels.data.subarray(from, from + 3);
        if (ABOUT.channels === 1) values[at] = ((19595 * r + 38470 * g + 7471 * b + 32768) >> 16) / 255;
        else [r, g, b].forEach((value, channel) => (values[channel * height * width + at] = value / 255));
      }
    }
    const found = await this.run(this.encoder, new this.ort.Tensor("float32", values, [1, ABOUT.channels, height, width]));
    const [h, w] = found.dims.slice(-2);
    return new Grid(this.depth, h, w, Int32Array.from(found.data, Number), [pixels.height, pixels.width]);
  }

  // The pixels of grids of one size, side by side in a batch; as they leave the decoder, not cropped.
  async decode(grids) {
    const { depth, h, w } = grids[0];
    const codes = new BigInt64Array(grids.length * depth * h * w);
    grids.forEach((grid, index) => grid.data.forEach((code, at) => (codes[index * grid.data.length + at] = BigInt(code))));
    const shape = ABOUT.axes === "B h w" ? [grids.length, h, w] : [grids.length, depth, h, w];
    const found = await this.run(this.decoder, new this.ort.Tensor("int64", codes, shape));
    const [, channels, height, width] = found.dims;
    const area = height * width;
    return grids.map((_, index) => {
      const data = new Uint8ClampedArray(4 * area); // which rounds halves to even, as Python does
      for (let at = 0; at < area; at++) {
        for (let channel = 0; channel < 3; channel++) {
          const plane = index * channels + (channels === 1 ? 0 : channel);
          data[4 * at + channel] = Math.fround(found.data[plane * area + at] * 255);
        }
        data[4 * at + 3] = 255;
      }
      return new ImageData(data, width, height);
    });
  }

  // The pixels that differ when the codes of a rectangle have changed: {pixels, x, y} in the whole picture.
  // A code reaches `reach` pixels beyond its own, and what lies at twice that distance decides nothing there.
  async decodeAround(grid, place) {
    const reach = ABOUT.reach === null ? Infinity : Math.ceil(ABOUT.reach / ABOUT.stride);
    const changed = grid.grown(place, reach);
    const seen = grid.grown(place, 2 * reach);
    if (ABOUT.fixed_size || seen.h * seen.w * 2 > grid.h * grid.w) return { pixels: (await this.decode([grid]))[0], x: 0, y: 0 };
    const [pixels] = await this.decode([grid.part(seen)]);
    const side = ABOUT.stride;
    const inner = cropped(pixels, (changed.x - seen.x) * side, (changed.y - seen.y) * side, changed.w * side, changed.h * side);
    return { pixels: inner, x: changed.x * side, y: changed.y * side };
  }

  // The codes whose vectors are nearest to that of a code, nearest first; itself is not among them.
  nearest(code, layer, count) {
    const [, size, dim] = ABOUT.vector_shape;
    if (!size) return [];
    const own = (layer * size + code) * dim;
    const distances = new Float64Array(size);
    for (let other = 0; other < size; other++) {
      for (let axis = 0, from = (layer * size + other) * dim; axis < dim; axis++) {
        distances[other] += (this.vectors[from + axis] - this.vectors[own + axis]) ** 2;
      }
    }
    const best = [];
    for (let other = 0; other < size; other++) {
      if (other === code || (best.length === count && distances[other] >= distances[best[count - 1]])) continue;
      let at = best.length;
      while (at > 0 && distances[best[at - 1]] > distances[other]) at--;
      best.splice(at, 0, other);
      best.length = Math.min(best.length, count);
    }
    return best;
  }

  // How each of some stacks of codes (one of each codebook) looks among its like: the middle of a 3 x 3 grid of it.
  async looks(stacks) {
    if (ABOUT.fixed_size) return stacks.map(() => null);
    const missing = stacks.filter((stack) => !this.tiles.has(String(stack)));
    if (missing.length) {
      const grids = missing.map((stack) => new Grid(this.depth, 3, 3, Int32Array.from(stack.flatMap((code) => Array(9).fill(code))), [0, 0]));
      const side = ABOUT.stride;
      const pictures = await this.decode(grids);
      missing.forEach((stack, index) => this.tiles.set(String(stack), cropped(pictures[index], side, side, side, side)));
    }
    return stacks.map((stack) => this.tiles.get(String(stack)));
  }
}

// A rectangle of pixels.
function cropped(pixels, x, y, width, height) {
  const found = new ImageData(width, height);
  for (let row = 0; row < height; row++) {
    const from = 4 * ((y + row) * pixels.width + x);
    found.data.set(pixels.data.subarray(from, from + 4 * width), 4 * row * width);
  }
  return found;
}
