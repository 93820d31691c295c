// Shows what nodes say: where they are, a subgraph that was closed while it ran too, on that subgraph's own node, and
// again when the page is loaded again. The host shows a text itself only while its node runs, and only in the graph
// that is on the canvas. Says of a changed model that goes nowhere that it does. Drops the pictures that a node showed
// while it worked once it has made its own. And names text boxes where the host does not.
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

function isOurs(node) {
  return Boolean(node?.comfyClass?.startsWith("LoCo_"));
}

function keep(outputs) {
  for (const [id, output] of Object.entries(outputs)) {
    const text = output?.text?.join("\n");
    if (!text) continue;
    texts.delete(id); // the last to speak is the last
    texts.set(id, text);
  }
}

// A node cannot know whether the model that it has changed is used.
const NOWHERE = "WARNING: the model that this node gives is not connected: connect it to the sampler";

function goesNowhere(node) {
  const [output] = node.outputs ?? [];
  return output?.type === "MODEL" && !output.links?.length;
}

// The host looks for a node without colons in its id in the graph on the canvas. Nodes 2.0 shows Markdown, where two
// blanks before its end break a line.
function showOn(node, text) {
  if (node.graph !== app.canvas.graph) return;
  api.dispatchCustomEvent("progress_text", { nodeId: String(node.id), text: text.replaceAll("\n", "  \n") });
}

// What the nodes in a subgraph say, in the order of their work, each line once.
function saidInside(id) {
  const inside = [...texts.keys()].filter((other) => other.startsWith(`${id}:`) && isOurs(findNode(other)));
  return [...new Set(inside.flatMap((other) => texts.get(other).split("\n")))].join("\n");
}

function show(id) {
  const node = findNode(id);
  if (!isOurs(node)) return;
  showOn(node, [...(goesNowhere(node) ? [NOWHERE] : []), texts.get(id)].join("\n"));
  for (let end = id.lastIndexOf(":"); end > 0; end = id.lastIndexOf(":", end - 1)) {
    const around = id.slice(0, end);
    showOn(findNode(around), saidInside(around));
  }
}

// Pixels of a letter, a line and what is around a text; of more than so many the host lets people scroll.
const LETTER = 6.6, LINE = 16, AROUND = 20, MOST = 200;

// In classic a node shows two lines, hides the rest, and breaks lines inside words.
function makeRoom(node, text) {
  const shown = node.widgets?.find(({ name }) => name === "$$node-text-preview");
  if (!shown || LiteGraph.vueNodesMode) return;
  const inLine = Math.floor((node.size[0] - 60) / LETTER);
  const lines = text.split("\n").reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / inLine)), 0);
  shown.options.getMinHeight = () => Math.min(MOST, AROUND + LINE * lines);
  node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
  app.canvas.setDirty(true, true);
  const begins = text.split("\n")[0].trim();
  for (const box of document.querySelectorAll(".break-all")) {
    if (box.textContent.startsWith(begins)) Object.assign(box.style, { wordBreak: "normal", overflowWrap: "anywhere" });
  }
}

// What was shown while the node worked would stay: in classic in place of its pictures, in Nodes 2.0 below them. Only
// the host's own store drops it there, and extensions are given no other way to it.
function dropPreview(id) {
  if (!isOurs(findNode(id))) return;
  const frontend = document.getElementById("vue-app")?.__vue_app__;
  const outputs = frontend?.config.globalProperties.$pinia?._s.get("nodeOutput");
  if (outputs?.revokePreviewsByExecutionId) {
    outputs.revokePreviewsByExecutionId(id); // in a moment, and not what is gone by then
  } else {
    delete app.nodePreviewImages?.[id];
  }
}

// In classic a text box that is not empty does not say what it is for: its name stands in its lower right corner.
function nameBox(box, name) {
  const text = `<text x="298" y="12" text-anchor="end" font-size="11" font-family="sans-serif" fill="#999">${name}</text>`;
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="300" height="16">${text}</svg>`;
  box.style.backgroundImage = `url("data:image/svg+xml,${encodeURIComponent(svg)}")`;
  box.style.backgroundRepeat = "no-repeat";
  box.style.backgroundPosition = "right 4px bottom 2px";
  box.style.paddingBottom = "16px";
}

function showAll() {
  [...texts.keys()].forEach(show);
}

async function fetched(route) {
  return (await api.fetchApi(route)).json();
}

function workflowOf(prompt) {
  return prompt?.[3]?.extra_pnginfo?.workflow?.id;
}

// What this workflow's nodes said in the runs that the host remembers, the oldest first, and since. Nodes of other
// workflows have the same ids.
async function remember() {
  const runs = Object.values(await fetched(`/history?max_items=${RUNS}`));
  const since = texts;
  texts = new Map();
  runs.filter(({ prompt }) => workflowOf(prompt) === rootGraph().id).forEach(({ outputs }) => keep(outputs));
  since.forEach((text, id) => texts.set(id, text));
}

async function findRun(promptId) {
  const { queue_running: running } = await fetched("/queue");
  return running.find(([, id]) => id === promptId) ?? (await fetched(`/history/${promptId}`))[promptId]?.prompt;
}

// The run whose nodes told something last: its id, and once it is known what was run.
let latest = {};

// A run goes on while another workflow is on the canvas.
async function isOnCanvas(promptId) {
  if (latest.promptId !== promptId) latest = { promptId, run: findRun(promptId) };
  return workflowOf(await latest.run) === rootGraph().id;
}

// Whatever a node says, also why it stopped.
api.addEventListener("progress_text", ({ detail }) => {
  const node = findNode(String(detail.nodeId));
  if (isOurs(node) || node?.subgraph) {
    setTimeout(() => makeRoom(node, detail.text), 50); // once the host has made room for a line or two
  }
});

// Asked for at once: a server at work answers late.
api.addEventListener("execution_start", ({ detail }) => isOnCanvas(detail.prompt_id));

api.addEventListener("executed", async ({ detail }) => {
  const id = String(detail.display_node ?? detail.node);
  if (detail.output?.images) dropPreview(id);
  if (!await isOnCanvas(detail.prompt_id)) return;
  keep({ [id]: detail.output });
  if (texts.has(id)) show(id);
});

app.registerExtension({
  name: "Loco.Text",
  setup() {
    app.canvas.canvas.addEventListener("litegraph:set-graph", showAll);
  },
  nodeCreated(node) {
    if (!isOurs(node)) return;
    for (const { element, name } of node.widgets ?? []) {
      if (element instanceof HTMLTextAreaElement) nameBox(element, name.replaceAll("_", " "));
    }
    const changed = node.onConnectionsChange;
    node.onConnectionsChange = function (...change) {
      const answer = changed?.apply(this, change);
      setTimeout(() => [...texts.keys()].filter((id) => findNode(id) === this).forEach(show)); // once the link is there
      return answer;
    };
  },
  beforeConfigureGraph() {
    texts = new Map();
  },
  async afterConfigureGraph() {
    await remember();
    showAll();
  },
});
