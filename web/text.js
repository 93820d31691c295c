// Shows what nodes say: where they are, a subgraph that was closed while it ran too, and again when the page is loaded
// again. The host shows a text itself only while its node runs, and only in the graph that is on the canvas. And drops
// the pictures that a node showed while it worked once it has made its own.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

// Runs of the history that are looked through.
const RUNS = 64;

// What nodes said last, by execution id: "5", or "5:3" for node 3 in subgraph node 5.
let texts = new Map();

function rootGraph() {
  return app.rootGraph ?? app.graph;
}

function findNode(id) {
  let graph = rootGraph();
  let node = null;
  for (const part of id.split(":")) {
    node = graph?.getNodeById(part);
    graph = node?.subgraph;
  }
  return node;
}

function keep(outputs) {
  for (const [id, output] of Object.entries(outputs)) {
    const text = output?.text?.join("\n");
    if (text) texts.set(id, text);
  }
}

// The host looks for a node without colons in its id in the graph on the canvas. Nodes 2.0 shows Markdown, where two
// blanks before its end break a line.
function show(id) {
  const node = findNode(id);
  if (node?.comfyClass?.startsWith("LoCo_") && node.graph === app.canvas.graph) {
    const text = texts.get(id).replaceAll("\n", "  \n");
    api.dispatchCustomEvent("progress_text", { nodeId: String(node.id), text });
  }
}

// What was shown while the node worked would stay in place of its pictures.
function dropPreview(id) {
  if (findNode(id)?.comfyClass?.startsWith("LoCo_")) delete app.nodePreviewImages?.[id];
}

function showAll() {
  [...texts.keys()].forEach(show);
}

// What this workflow's nodes said in the runs that the host remembers, the oldest first.
async function remember() {
  const workflow = rootGraph().id;
  const answer = await api.fetchApi(`/history?max_items=${RUNS}`);
  texts = new Map();
  for (const run of Object.values(await answer.json())) {
    if (run.prompt[3]?.extra_pnginfo?.workflow?.id === workflow) keep(run.outputs);
  }
}

api.addEventListener("executed", ({ detail }) => {
  const id = String(detail.display_node ?? detail.node);
  keep({ [id]: detail.output });
  if (detail.output?.images) dropPreview(id);
  if (texts.has(id)) show(id);
});

app.registerExtension({
  name: "Loco.Text",
  setup() {
    app.canvas.canvas.addEventListener("litegraph:set-graph", showAll);
  },
  async afterConfigureGraph() {
    await remember();
    showAll();
  },
});
