// A job as a call: curl, the farm's own Python client, and OpenAI's. The key is named, never shown.

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const python = (value) => JSON.stringify(value);

/** JSON with seeds as numbers: they have up to 63 bits, which a number of a script has not, so here they are texts. */
export const encode = (body, indent) => JSON.stringify(body, null, indent).replace(/"seed":( ?)"(\d+)"/g, '"seed":$1$2');

const shown = ({ previews: _previews, tags: _tags, ...rest }) => rest;

export const snippets = {
  curl: (base, body) => `curl -s ${base}/v1/jobs \\
  -H "Authorization: Bearer $FLUXFARM_API_KEY" -H "Content-Type: application/json" \\
  -d ${quoted(encode(shown(body), 2))}`,

  python: (base, body) => {
    const asked = body.promptObject;
    const options = [["model", body.model], ["size", asked.size], ["n", asked.n], ["seed", asked.seed], ["steps", asked.num_inference_steps], ["guidance", asked.guidance], ["output_format", asked.output_format], ["images", asked.images], ["provider", body.provider]];
    const lines = options.filter(([, value]) => value !== undefined).map(([name, value]) => `        ${name}=${name === "seed" ? value : python(value)},`);
    return `import os
from pathlib import Path

from fluxfarm.client import Client

with Client(${python(base)}, os.environ["FLUXFARM_API_KEY"]) as farm:
    rendered = farm.render(
        ${python(asked.prompt)},
${lines.join("\n")}
    )
    for n, picture in enumerate(rendered.images):
        Path(f"picture-{n}.${asked.output_format}").write_bytes(picture)`;
  },

  openai: (base, body) => {
    const asked = body.promptObject;
    const extra = { seed: asked.seed, num_inference_steps: asked.num_inference_steps, guidance: asked.guidance };
    const more = Object.entries(extra).filter(([, value]) => value !== undefined).map(([name, value]) => `${python(name)}: ${name === "seed" ? value : python(value)}`);
    return `import base64
import os
from pathlib import Path

from openai import OpenAI

client = OpenAI(base_url=${python(`${base}/v1`)}, api_key=os.environ["FLUXFARM_API_KEY"])
reply = client.images.generate(
    model=${python(body.model)},
    prompt=${python(asked.prompt)},
    size=${python(asked.size || "auto")},
    n=${asked.n || 1},
    output_format=${python(asked.output_format)},
    response_format="b64_json",${more.length ? `\n    extra_body={${more.join(", ")}},` : ""}
)
for n, picture in enumerate(reply.data):
    Path(f"picture-{n}.${asked.output_format}").write_bytes(base64.b64decode(picture.b64_json))`;
  },
};
