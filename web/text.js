// Shows a node's text again when its result comes from the cache: the host sends the text, but only progress is shown.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

// The node of an execution id: "5", or "5:3" for node 3 in subgraph node 5.
function findNode(id) {
  let graph = app.rootGraph ?? app.graph;
  let node = null;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(part);
    graph = node?.subgraph;
  }
  return node;
}

api.addEventListener("executed", ({ detail }) => {
  const id = String(detail.display_node ?? detail.node);
  const text = detail.output?.text?.join("\n");
  if (text && findNode(id)?.comfyClass?.startsWith("LoCo_")) {
    api.dispatchCustomEvent("progress_text", { nodeId: id, text });
  }
});
