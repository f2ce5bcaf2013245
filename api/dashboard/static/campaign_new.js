// Files dropped anywhere on the form go into its one field; what they are, the server tells by their endings.
const form = document.getElementById("plan");
const field = document.getElementById("dropped");
const drop = document.getElementById("drop");
const error = document.getElementById("form-error");

function chosen() {
  const size = [...field.files].reduce((sum, file) => sum + file.size, 0);
  const limit = Number(form.dataset.limit);
  const isTooLarge = size > limit * 0.98;
  error.hidden = !isTooLarge;
  error.textContent = isTooLarge ? `These files have ${Math.round(size / 1048576)} MB together; at most ${Math.round(limit / 1048576)} MB are taken at once. Scale the pictures down, or drop fewer.` : "";
  if (isTooLarge) field.value = "";
  else if (field.files.length) {
    document.getElementById("chosen").textContent = [...field.files].map((file) => file.name).join(", ");
    form.requestSubmit(form.querySelector('button[value="plan"]'));
  }
}

for (const name of ["dragenter", "dragover"]) form.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("is-over"); });
for (const name of ["dragleave", "drop"]) form.addEventListener(name, (event) => { event.preventDefault(); drop.classList.remove("is-over"); });
form.addEventListener("input", () => { for (const run of form.querySelectorAll('button[value="run"]')) run.hidden = true; }); // what is run was planned
form.addEventListener("drop", (event) => { field.files = event.dataTransfer.files; chosen(); });
field.addEventListener("change", chosen);
