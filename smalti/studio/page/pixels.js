// Pixels, {data, width, height} as in ImageData: from files, to canvases and files, and how far they are from others.

function fill(canvas, pixels) {
  canvas.hidden = !pixels;
  if (!pixels) return;
  [canvas.width, canvas.height] = [pixels.width, pixels.height];
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

// Of a bitmap on white, or of a canvas; made smaller where a size is given.
function pixelsOf(bitmap, width = bitmap.width, height = bitmap.height, [w, h] = [bitmap.width, bitmap.height]) {
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, (bitmap.width - w) / 2, (bitmap.height - h) / 2, w, h, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

// Of a whole image file.
async function pixelsIn(blob) {
  return pixelsOf(await createImageBitmap(blob, { colorSpaceConversion: "none" }));
}

async function asPng(pixels) {
  const canvas = new OffscreenCanvas(pixels.width, pixels.height);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

// Peak signal-to-noise ratio in decibels, of colours; Infinity where there is no error.
function psnrDb(pixels, original) {
  let sum = 0;
  for (let at = 0; at < pixels.data.length; at++) {
    if (at % 4 !== 3) sum += (pixels.data[at] - original.data[at]) ** 2;
  }
  return 10 * Math.log10((255 ** 2 * 0.75 * pixels.data.length) / sum);
}

const decibels = (value) => (value === null || value === Infinity ? "no error" : `${value.toFixed(2)} dB`);

// The colour [red, green, blue] of a share, which above 1 is that of 1; a ramp has rows of [share, red, green, blue] from 0 to 1.
function colourOf(share, ramp) {
  const above = ramp.findIndex(([end]) => end >= Math.min(1, share));
  const [low, high] = [ramp[Math.max(0, above - 1)], ramp[above]];
  const way = high[0] > low[0] ? (Math.min(1, share) - low[0]) / (high[0] - low[0]) : 0;
  return [1, 2, 3].map((index) => low[index] + way * (high[index] - low[index]));
}
