// Package recipes mounts package reset on routers, with access logs that do not
// show links. Each function is a recipe to copy; a test walks through the whole
// journey on each.
package recipes

import (
	"io"
	"log"
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	chimiddleware "github.com/go-chi/chi/v5/middleware"
	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"
	fiberlogger "github.com/gofiber/fiber/v3/middleware/logger"
	"github.com/labstack/echo/v4"
	echomiddleware "github.com/labstack/echo/v4/middleware"

	"github.com/gopassreset/reset"
)

// NetHTTP mounts on the router of the standard library.
func NetHTTP(svc *reset.Service, accessLog io.Writer) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/account/", svc.Pages())
	mux.Handle("/v1/auth/", svc.Handler())

	l := log.New(accessLog, "", log.LstdFlags)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.Println(r.Method, r.URL.Path) // not r.URL, which has the query
		mux.ServeHTTP(w, r)
	})
}

// Chi mounts on chi.
func Chi(svc *reset.Service, accessLog io.Writer) http.Handler {
	r := chi.NewRouter()
	r.Use(withoutQuery, chimiddleware.RequestLogger(&chimiddleware.DefaultLogFormatter{Logger: log.New(accessLog, "", log.LstdFlags)}))
	r.Mount("/account", svc.Pages())
	r.Handle("/v1/auth/*", svc.Handler())
	return r
}

// withoutQuery hides the query from loggers that write RequestURI.
func withoutQuery(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RequestURI = r.URL.EscapedPath()
		next.ServeHTTP(w, r)
	})
}

// Gin mounts on gin.
func Gin(svc *reset.Service, accessLog io.Writer) http.Handler {
	r := gin.New()
	r.Use(gin.LoggerWithConfig(gin.LoggerConfig{Output: accessLog, SkipQueryString: true}))
	r.Any("/account/*path", gin.WrapH(svc.Pages()))
	r.Any("/v1/auth/*path", gin.WrapH(svc.Handler()))
	return r
}

// Echo mounts on echo.
func Echo(svc *reset.Service, accessLog io.Writer) http.Handler {
	e := echo.New()
	l := log.New(accessLog, "", log.LstdFlags)
	e.Use(echomiddleware.RequestLoggerWithConfig(echomiddleware.RequestLoggerConfig{
		LogMethod: true, LogURIPath: true, LogStatus: true, // not LogURI, which has the query
		LogValuesFunc: func(_ echo.Context, v echomiddleware.RequestLoggerValues) error {
			l.Println(v.Method, v.URIPath, v.Status)
			return nil
		},
	}))
	e.Any("/account/*", echo.WrapHandler(svc.Pages()))
	e.Any("/v1/auth/*", echo.WrapHandler(svc.Handler()))
	return e
}

// Fiber mounts on fiber through its adaptor, since fiber is not built on
// net/http.
func Fiber(svc *reset.Service, accessLog io.Writer) *fiber.App {
	app := fiber.New()
	app.Use(fiberlogger.New(fiberlogger.Config{Stream: accessLog, Format: "${method} ${path} ${status}\n"}))
	app.Use("/account", adaptor.HTTPHandler(svc.Pages()))
	app.Use("/v1/auth", adaptor.HTTPHandler(svc.Handler()))
	return app
}
