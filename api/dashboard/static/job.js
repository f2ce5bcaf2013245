// A job that is not over: its steps and previews as they come, and the page anew at its end.
import { follow } from "./shell.js";

const job = document.getElementById("job");
if (job.dataset.over === "no") {
  const progress = document.getElementById("progress");
  const step = document.getElementById("step");
  const status = document.querySelector("#status .badge");
  const preview = document.getElementById("preview");
  const over = new Set(["SUCCESS", "FAILED", "CANCELED"]);
  let first = true;
  const source = follow(`${job.dataset.root}/v1/jobs/${job.dataset.uuid}/events`, {
    status(told) {
      if (over.has(told.status)) {
        source.close();
        location.reload();
      } else if (!first || told.status !== "QUEUED") {
        status.textContent = told.status[0] + told.status.slice(1).toLowerCase();
        status.className = `badge is-${told.status.toLowerCase()}`;
      }
      first = false;
    },
    progress(told) {
      progress.max = told.steps;
      progress.value = told.step;
      step.textContent = `step ${told.step} of ${told.steps}`;
    },
    preview(told) {
      preview.src = `data:${told.contentType};base64,${told.image}`;
      preview.hidden = false;
      document.getElementById("stage-word").hidden = true;
    },
  });
}
