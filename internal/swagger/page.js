// Starts Swagger UI on the document that the page names.
window.addEventListener("load", () => {
  window.ui = SwaggerUIBundle({
    url: document.body.dataset.document,
    dom_id: "#ui",
    deepLinking: true,
    docExpansion: "none",
    filter: true,
    validatorUrl: null, // or it would send the document to a server elsewhere
    presets: [SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
  });
});
