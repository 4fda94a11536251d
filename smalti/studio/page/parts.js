// What the page carries: the graphs, the codebook, the runtime and a picture, each as compressed text.

const find = (name) => document.getElementById(name);
const status = (text) => (find("status").textContent = text);
const ABOUT = JSON.parse(find("about").textContent);

const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

async function part(name) {
  const element = find(`part-${name}`);
  const packed = bytesOf(element.textContent);
  element.remove(); // the text would stay in memory otherwise
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
