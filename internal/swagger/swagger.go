// Package swagger is the page that shows an OpenAPI document and lets one try
// its operations: Swagger UI, from the binary, without any other server.
//
// The folder dist holds files of the npm package swagger-ui-dist (Apache-2.0) as
// they are published; package.json names the version, and CI compares them.
package swagger

import (
	"embed"
	"html/template"
	"io/fs"
	"net/http"
	"strings"
)

//go:embed dist page.js
var embedded embed.FS

// Policy is the Content-Security-Policy of the page: nothing from elsewhere, no
// inline script, and no frame around it. Swagger UI sets styles inline and has
// its icons in data URLs.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

var page = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.Title}}</title>
<link rel="stylesheet" href="{{.Assets}}/swagger-ui.css">
<link rel="icon" type="image/png" href="{{.Assets}}/favicon-32x32.png">
</head>
<body data-document="{{.Document}}">
<div id="ui"></div>
<script src="{{.Assets}}/swagger-ui-bundle.js"></script>
<script src="{{.Assets}}/page.js"></script>
</body>
</html>
`))

// Page shows the document at a path. Assets is the path below which Asset
// answers.
func Page(w http.ResponseWriter, title, document, assets string) error {
	var text strings.Builder
	if err := page.Execute(&text, struct{ Title, Document, Assets string }{title, document, assets}); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", Policy)
	w.Header().Set("Referrer-Policy", "no-referrer")
	_, err := w.Write([]byte(text.String()))
	return err
}

// Asset answers with a file that the page uses, and reports whether there is
// one of that name.
func Asset(w http.ResponseWriter, r *http.Request, name string) bool {
	path := "dist/" + name
	if name == "page.js" {
		path = name
	}
	if _, err := fs.Stat(embedded, path); err != nil || strings.Contains(name, "/") || name == "" {
		return false
	}
	w.Header().Set("Cache-Control", "private, max-age=3600")
	http.ServeFileFS(w, r, embedded, path)
	return true
}
