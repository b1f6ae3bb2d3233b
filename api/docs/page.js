"use strict";
(() => {
  const main = document.getElementById("main");
  const nav = document.getElementById("nav");

  // el makes an element. Text goes in as text, never as markup.
  const el = (tag, props = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(props)) {
      if (value !== undefined) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== undefined && child !== ""));
    return node;
  };

  const show = (doc) => {
    // follow resolves references within the document.
    const follow = (value) => {
      let hops = 0;
      while (value && value.$ref && hops++ < 16) {
        value = value.$ref.slice(2).split("/").reduce((at, step) => at && at[step.replace(/~1/g, "/").replace(/~0/g, "~")], doc);
      }
      return value || {};
    };

    // shape writes a schema as one reads it: JSON with types in place of values.
    const shape = (schema, indent = "", seen = []) => {
      schema = follow(schema);
      if (seen.includes(schema) || seen.length > 12) return "…";
      const inner = [...seen, schema];
      const types = [].concat(schema.type || []);
      if (schema.const !== undefined) return JSON.stringify(schema.const);
      if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
      if (schema.properties) {
        const required = schema.required || [];
        const lines = Object.entries(schema.properties).map(([name, property]) => {
          const said = follow(property);
          const about = said.description && !said.properties ? "  // " + said.description : "";
          return indent + "  " + JSON.stringify(name) + (required.includes(name) ? "" : "?") + ": " + shape(property, indent + "  ", inner) + about;
        });
        return "{\n" + lines.join("\n") + "\n" + indent + "}";
      }
      if (types.includes("array")) return "[" + shape(schema.items || {}, indent, inner) + "]";
      if (schema.additionalProperties && typeof schema.additionalProperties === "object") {
        return "{\n" + indent + "  <name>: " + shape(schema.additionalProperties, indent + "  ", inner) + "\n" + indent + "}";
      }
      if (types.length) return types.join(" | ");
      return "any JSON";
    };

    const access = (operation) => {
      const ways = operation.security;
      if (!ways || ways.length === 0) return "";
      const names = ways.flatMap((way) => Object.keys(way));
      if (names.includes("admin")) return "more with the admin's token";
      if (names.length === 1 && names[0] === "app") return "the app's token";
      return ways.some((way) => Object.keys(way).length === 0) ? "anybody; owned entries need their owner" : "a user's token";
    };

    const curl = (method, path, operation) => {
      const parts = ["curl -i"];
      const names = (operation.security || []).flatMap((way) => Object.keys(way));
      if (method === "post") parts.push("-X POST");
      if (names.includes("user")) parts.push("-H \"Authorization: Bearer $TOKEN\"");
      else if (names.includes("app")) parts.push("-H \"Authorization: Bearer $EVENTS_TOKEN\"");
      if (operation.requestBody) {
        parts.push("-H 'Content-Type: " + Object.keys(follow(operation.requestBody).content)[0] + "' -d @body.json");
      }
      parts.push("'" + location.origin + path + "'");
      return parts.join(" \\\n  ");
    };

    const parameters = (list) => {
      const rows = el("dl");
      for (const parameter of list.map(follow)) {
        rows.append(
          el("dt", {}, el("code", {}, parameter.name), el("em", {}, parameter.in + (parameter.required ? ", needed" : ""))),
          el("dd", {}, parameter.description || ""));
      }
      return rows;
    };

    const bodies = (content) => Object.entries(content || {}).map(([media, body]) =>
      el("div", {}, el("span", { class: "mono note" }, media), el("pre", {}, shape(body.schema || {}))));

    const response = (code, value) => {
      value = follow(value);
      const bad = code >= "400" || code === "default";
      const inside = el("div", { class: "inside" }, ...bodies(value.content));
      const headers = Object.entries(value.headers || {}).map(([name, header]) => [name, follow(header)]);
      if (headers.length) {
        const rows = el("dl");
        for (const [name, header] of headers) rows.append(el("dt", {}, el("code", {}, name)), el("dd", {}, header.description || header.schema.const || ""));
        inside.append(rows);
      }
      return el("details", code < "300" ? { open: "" } : {},
        el("summary", {}, el("span", { class: "code" + (bad ? " bad" : "") }, code === "default" ? "other" : code), el("span", { class: "text" }, value.description || "")),
        inside);
    };

    const article = (method, path, operation) => {
      const line = curl(method, path, operation);
      const copy = el("button", { type: "button" }, "Copy");
      copy.addEventListener("click", async () => {
        await navigator.clipboard.writeText(line);
        copy.textContent = "Copied";
        setTimeout(() => { copy.textContent = "Copy"; }, 1500);
      });
      const lock = access(operation);
      const node = el("article", { id: operation.operationId },
        el("h3", {},
          el("span", { class: "method " + method }, method.toUpperCase()),
          el("a", { href: "#" + operation.operationId, class: "mono" }, path),
          lock ? el("span", { class: "lock" }, lock) : undefined),
        el("p", {}, operation.summary || ""),
        operation.description ? el("p", { class: "note" }, operation.description) : undefined);
      if (operation.parameters && operation.parameters.length) node.append(el("h4", {}, "Parameters"), parameters(operation.parameters));
      if (operation.requestBody) node.append(el("h4", {}, "Body"), ...bodies(follow(operation.requestBody).content));
      node.append(el("h4", {}, "Answers"), ...Object.entries(operation.responses).map(([code, value]) => response(code, value)));
      node.append(el("h4", {}, "Try it"), el("div", { class: "curl" }, el("pre", {}, line), navigator.clipboard ? copy : undefined));
      return node;
    };

    main.replaceChildren(el("h1", {}, doc.info.title), el("p", { class: "lead" }, doc.info.description || ""));
    nav.replaceChildren(el("h1", {}, doc.info.title), el("p", { class: "version" }, doc.info.version + " · ", el("a", { href: "/openapi.json" }, "openapi.json")));

    const all = Object.entries(doc.paths).flatMap(([path, item]) => Object.entries(item).map(([method, operation]) => ({ path, method, operation })));
    for (const tag of doc.tags || []) {
      const mine = all.filter((one) => (one.operation.tags || []).includes(tag.name));
      if (!mine.length) continue;
      main.append(el("h2", {}, tag.name), el("p", { class: "quiet" }, tag.description || ""));
      nav.append(el("h2", {}, tag.name));
      for (const { path, method, operation } of mine) {
        main.append(article(method, path, operation));
        nav.append(el("a", { href: "#" + operation.operationId },
          el("span", { class: "method " + method }, method.toUpperCase()), el("span", { class: "mono" }, path)));
      }
    }

    if (doc["x-problems"]) {
      const rows = el("dl");
      for (const one of doc["x-problems"]) {
        rows.append(el("dt", { id: one.kind }, el("code", {}, one.kind), el("em", {}, one.status + " " + one.title)), el("dd", {}, one.text));
      }
      main.append(el("h2", { id: "problems" }, "Problems"), el("p", { class: "quiet" }, "The types of problem documents, and what to do about each."), el("article", {}, rows));
      nav.append(el("h2", {}, "Problems"), el("a", { href: "#problems" }, "Types of problems"));
    }
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target) target.scrollIntoView();
  };

  fetch("/openapi.json")
    .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error("status " + answer.status))))
    .then(show)
    .catch((error) => main.replaceChildren(el("h1", {}, "No document"), el("p", { class: "lead" }, "/openapi.json could not be read: " + error.message)));
})();
