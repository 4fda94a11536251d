// Codes as text and as files: JSON for the clipboard and the server, .npz as `smalti encode` writes it, .smalti, PNG.

const asJson = (grid) => JSON.stringify(asValue(grid));

function asValue(grid) {
  const about = { smalti: "codes", model_hash: ABOUT.model_hash, codebook_size: ABOUT.codebook_size };
  return { ...about, size: grid.size, codes: nested(grid) };
}

// The codes of a grid as lists, (h, w) or (q, h, w), as Python has them.
function nested(grid) {
  const layers = Array.from({ length: grid.depth }, (_, layer) => rowsOf(grid.data.subarray(layer * grid.h * grid.w), grid.h, grid.w));
  return ABOUT.axes === "B h w" ? layers[0] : layers;
}

const rowsOf = (values, h, w) => Array.from({ length: h }, (_, y) => Array.from(values.subarray(y * w, (y + 1) * w)));

// The inverse of `nested`.
function fromNested(codes, size) {
  const layers = ABOUT.axes === "B h w" ? [codes] : codes;
  const [h, w] = [layers[0]?.length ?? 0, layers[0]?.[0]?.length ?? 0];
  const even = layers.length === ABOUT.num_codebooks && layers.every((rows) => rows.length === h && rows.every((row) => row.length === w));
  if (!h || !w || !even) throw new Error("These codes are no whole grid.");
  const data = layers.flat(2);
  if (!data.every((code) => Number.isInteger(code) && code >= 0 && code < ABOUT.codebook_size)) {
    throw new Error(`Codes lie between 0 and ${ABOUT.codebook_size - 1}; these do not.`);
  }
  return new Grid(layers.length, h, w, Int32Array.from(data), size ?? [h * ABOUT.stride, w * ABOUT.stride]);
}

// The grid that a text holds. Throws an Error with a sentence for people.
function fromJson(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error("The clipboard holds no codes of the studio.");
  }
  if (value?.smalti !== "codes" || !Array.isArray(value.codes)) throw new Error("The clipboard holds no codes of the studio.");
  return fromValue(value);
}

function fromValue(value) {
  if (value.model_hash !== ABOUT.model_hash) throw new Error("These codes are of another model.");
  return fromNested(value.codes, value.size);
}

// .npz: a ZIP of .npy files, stored as they are.
function asNpz(grid, name) {
  const small = ABOUT.codebook_size <= 1 << 16;
  const shape = ABOUT.axes === "B h w" ? [grid.h, grid.w] : [grid.depth, grid.h, grid.w];
  const hash = ABOUT.model_hash;
  return zip({
    "model_hash.npy": npy(`<U${hash.length}`, [], Uint32Array.from(hash, (letter) => letter.codePointAt(0))),
    "codebook_size.npy": npy("<i8", [], BigInt64Array.of(BigInt(ABOUT.codebook_size))),
    [`codes/${name}.npy`]: npy(small ? "<u2" : "<u4", shape, (small ? Uint16Array : Uint32Array).from(grid.data)),
    [`size/${name}.npy`]: npy("<i8", [2], BigInt64Array.from(grid.size, BigInt)),
  });
}

function npy(type, shape, values) {
  const text = `{'descr': '${type}', 'fortran_order': False, 'shape': (${shape.map((side) => `${side},`).join(" ")}), }`;
  const header = new TextEncoder().encode(text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11) + "\n");
  const file = new Uint8Array(10 + header.length + values.byteLength);
  file.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, header.length & 255, header.length >> 8]);
  file.set(header, 10);
  file.set(new Uint8Array(values.buffer), 10 + header.length);
  return file;
}

const CRC = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function zip(files) {
  const [parts, listed] = [[], []];
  let offset = 0;
  for (const [name, data] of Object.entries(files)) {
    const label = new TextEncoder().encode(name);
    const crc = ~data.reduce((value, byte) => CRC[(value ^ byte) & 255] ^ (value >>> 8), -1) >>> 0;
    const about = [20, 0x800, 0, 0, 0x21]; // version, names are UTF-8, stored, 1980-01-01
    const sizes = [crc, data.length, data.length];
    parts.push(fields([0x04034b50], about, sizes, [label.length, 0]), label, data);
    listed.push(fields([0x02014b50], [20, ...about], sizes, [label.length, 0, 0, 0, 0], [0, offset]), label);
    offset += 30 + label.length + data.length;
  }
  const count = Object.keys(files).length;
  const length = listed.reduce((sum, piece) => sum + piece.length, 0);
  return new Blob([...parts, ...listed, fields([0x06054b50], [0, 0, count, count], [length, offset], [0])]);
}

// Little-endian numbers: lists of 32 bits and of 16 bits by turns.
function fields(...lists) {
  const bytes = lists.flatMap((list, index) => list.flatMap((value) => Array.from({ length: index % 2 ? 2 : 4 }, (_, at) => (value >>> (8 * at)) & 255)));
  return Uint8Array.from(bytes);
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const isArchive = (file) => /\.smalti$/i.test(file.name ?? "");

// The image of a .smalti file, and its codes where they are all there and of this model; a server unpacks it.
async function unpacked(file, server) {
  if (!server.there) throw new Error("a .smalti file is unpacked by a server: smalti serve");
  const value = await (await server.post("decompress", file, { to: "codes" })).json();
  const own = value.codes && value.model_hash === ABOUT.model_hash;
  return { image: await (await server.post("decompress", file)).blob(), grid: own ? fromValue(value) : null };
}

// The pixels of an image file on white, at most `limit` pixels along its longer side; or of one size alone.
// With `middle`, [H, W], what of its middle has that shape, at that size.
async function readPixels(file, limit, middle = null) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const scale = Math.min(1, limit / Math.max(bitmap.width, bitmap.height));
  const scaled = [bitmap.height, bitmap.width].map((side) => Math.max(1, Math.round(side * scale)));
  const [height, width] = middle ?? ABOUT.fixed_size ?? scaled;
  const zoom = middle && Math.min(bitmap.height / height, bitmap.width / width);
  return pixelsOf(bitmap, width, height, middle ? [width * zoom, height * zoom] : undefined);
}
