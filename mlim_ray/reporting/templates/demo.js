"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const form = at("question");
  let picture = null;
  let seed = 0;

  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const complain = (line) => {
    at("error").textContent = line || "";
    at("error").hidden = !line;
  };
  const base64 = (file) => new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error(`${file.name} cannot be read`));
    reader.readAsDataURL(file);
  });

  const take = (file) => {
    complain("");
    const most = Number(form.dataset.maxBytes);
    if (file && file.size > most) {
      complain(`${file.name} has ${file.size.toLocaleString("en")} bytes; at most ${most.toLocaleString("en")} are taken`);
      file = null;
    }
    if (at("preview").src) URL.revokeObjectURL(at("preview").src);
    picture = file || null;
    at("preview").hidden = at("clear").hidden = !picture;
    at("drop-hint").hidden = Boolean(picture);
    if (picture) at("preview").src = URL.createObjectURL(picture);
    else {
      at("preview").removeAttribute("src");
      at("file").value = "";
    }
  };

  const showWords = (part) => {
    at("words-caption").textContent = part.caption;
    at("words").replaceChildren(...part.items.map((item) => {
      const box = element("div", "piece hidden");
      box.append(element("b", "", item.word === null ? "[MASK]" : item.word));
      for (const { shown, words } of item.guesses) {
        box.append(element("span", "shown", shown));
        for (const { word, probability, right } of words) {
          const line = element("div", right ? "guess right" : "guess");
          line.append(element("span", "", word), element("span", "", probability));
          box.append(line);
        }
      }
      return box;
    }));
  };
  const figure = (uri, name, caption) => {
    const made = element("figure");
    if (uri) {
      const image = element("img");
      image.src = uri;
      image.alt = `${name}: ${caption}`;
      made.append(image);
    }
    const told = element("figcaption");
    told.append(element("b", "", name), caption);
    made.append(told);
    return made;
  };
  const show = (answer) => {
    showWords(answer.words);
    at("pictures-caption").textContent = answer.pictures.caption;
    at("pictures").replaceChildren(...answer.pictures.items.map((one) => figure(one.uri, one.name, one.caption)));
    at("neighbours-caption").textContent = answer.neighbours.caption;
    at("neighbours").replaceChildren(...answer.neighbours.items.map((one) => (
      figure(one.uri, one.similarity, one.text === null ? one.key : `${one.text} (${one.key})`)
    )));
    at("answer").hidden = false;
  };

  const ask = async () => {
    complain("");
    at("ask").disabled = at("other").disabled = true;
    at("state").textContent = "The model is asked ...";
    try {
      const question = { text: at("text").value, hidden: Number(at("hidden").value) / 100, seed };
      if (picture) question.picture = await base64(picture);
      const reply = await fetch("/ask", {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(question),
      });
      const content = await reply.json();
      if (reply.ok) show(content);
      else complain(content.error);
    } catch (error) {
      complain(error instanceof TypeError ? "the program does not answer; is mlim-ray demo still running?" : error.message);
    } finally {
      at("ask").disabled = at("other").disabled = false;
      at("state").textContent = "";
    }
  };

  form.addEventListener("submit", (event) => { event.preventDefault(); ask(); });
  at("other").addEventListener("click", () => { seed += 1; ask(); });
  at("clear").addEventListener("click", () => take(null));
  at("file").addEventListener("change", () => { if (at("file").files.length) take(at("file").files[0]); });
  at("hidden").addEventListener("input", () => { at("hidden-told").value = `${at("hidden").value} %`; });
  // A picture that misses the box must not replace the page.
  addEventListener("dragover", (event) => { event.preventDefault(); at("drop").classList.add("over"); });
  addEventListener("dragleave", () => at("drop").classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    at("drop").classList.remove("over");
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
})();
