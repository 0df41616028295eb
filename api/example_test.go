package api_test

import (
	"fmt"
	"net/http/httptest"

	"github.com/kith-mesh/kith/api"
	"github.com/kith-mesh/kith/api/internal/memory"
)

func Example() {
	s, err := api.New(api.Config{Backend: memory.New().Backend(), Token: "0123456789abcdef"})
	if err != nil {
		panic(err)
	}
	r := httptest.NewRequest("GET", "http://localhost:7770/api/v1/peers", nil)
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"))
	// Output: 401 Bearer realm="kith"
}
