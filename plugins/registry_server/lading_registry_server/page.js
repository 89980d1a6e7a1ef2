// Copy buttons: shown only where copying works.
"use strict";
for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = button.dataset.copy;
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without TLS browsers offer no clipboard API: select the text and copy that.
      const range = document.createRange();
      range.selectNodeContents(button.previousElementSibling);
      const selection = getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      done = document.execCommand("copy");
    }
    const said = done ? "Copied" : "Press Ctrl+C to copy";
    button.textContent = said;
    document.getElementById("said").textContent = said;
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}
