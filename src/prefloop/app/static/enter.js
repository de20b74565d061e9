// The code stands behind the # of the link; it is taken out of the address before anything else happens.
function use() {
  const code = location.hash.slice(1);
  if (!code) return;
  history.replaceState(null, "", location.pathname);
  document.getElementById("code").value = code;
  document.getElementById("enter").requestSubmit();
}
addEventListener("hashchange", use);
use();
