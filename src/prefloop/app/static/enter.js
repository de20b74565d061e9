// The code stands behind the # of the link; it is taken out of the address before anything else happens.
const code = decodeURIComponent(location.hash.slice(1));
if (code) {
  history.replaceState(null, "", location.pathname);
  document.getElementById("code").value = code;
  document.getElementById("enter").requestSubmit();
}
