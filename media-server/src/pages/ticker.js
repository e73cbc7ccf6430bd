// Worker of testpicture.js: posts a message every so many milliseconds.
onmessage = ({ data }) => setInterval(() => postMessage(null), data);
