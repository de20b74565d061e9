// Remembers which version was read, so that the page of tasks can say that there is a newer one.
const version = document.querySelector(".guidelines").dataset.version;
if (version) localStorage.setItem(`prefloop.read.${document.body.dataset.person}`, version);
