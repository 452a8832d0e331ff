// Keeps the parts of a page that htmx renews calm: what was open stays open, and one button
// stops all of it. Without scripts every page works; it is then as old as its loading.
(function () {
  "use strict";
  var live = true, open = [];
  var button = document.getElementById("live-switch");

  function isPolling(event) {
    var from = event.detail.requestConfig ? event.detail.requestConfig.verb : "get";
    return from === "get" && event.target.matches("[hx-trigger^='every']");
  }

  if (button) {
    button.hidden = false;
    button.addEventListener("click", function () {
      live = !live;
      button.setAttribute("aria-pressed", String(live));
      button.textContent = "Live updates: " + (live ? "on" : "off");
    });
  }
  document.addEventListener("htmx:beforeRequest", function (event) {
    if (isPolling(event) && (!live || document.hidden)) event.preventDefault();
  });
  document.addEventListener("htmx:beforeSwap", function (event) {
    open = Array.from(event.detail.target.querySelectorAll("details[id][open]")).map(function (it) {
      return it.id;
    });
  });
  document.addEventListener("htmx:afterSwap", function () {
    open.forEach(function (id) {
      var it = document.getElementById(id);
      if (it) it.open = true;
    });
  });
  // A form is sent once, however often its button is pressed.
  document.addEventListener("submit", function (event) {
    var form = event.target;
    if (form.method !== "post" || event.defaultPrevented) return;
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
  });
  window.addEventListener("pageshow", function () {
    document.querySelectorAll("form[data-sent]").forEach(function (it) { delete it.dataset.sent; });
  });
})();
