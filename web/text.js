// Shows a node's text again when its result comes from the cache: the host sends the text, but only progress is shown.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

api.addEventListener("executed", ({ detail }) => {
  const node = app.graph?.getNodeById(detail.display_node ?? detail.node);
  const text = detail.output?.text?.join("\n");
  if (text && node?.comfyClass?.startsWith("LoCo_")) {
    api.dispatchCustomEvent("progress_text", { nodeId: String(node.id), text });
  }
});
