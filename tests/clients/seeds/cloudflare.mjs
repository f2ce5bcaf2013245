const form = new FormData();
form.append('prompt', 'a sunset with a dog');
form.append('width', '1024');
form.append('height', '1024');

const url = `${process.env.FARM_URL}/client/v4/accounts/023e105f4ecef8ad9ca31a8372d0c353/ai/run`;
const resp = await fetch(`${url}/@cf/black-forest-labs/flux-2-dev`, {
  method: 'POST',
  headers: { Authorization: `Bearer ${process.env.FARM_KEY}` },
  body: form
});
console.log(await resp.text());
