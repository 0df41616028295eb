package kernel

//go:generate go run github.com/kith-mesh/kith/tensor/gen each .
//go:generate go run github.com/kith-mesh/kith/tensor/gen gemm .
//go:generate go run github.com/kith-mesh/kith/tensor/gen neon .
//go:generate go run github.com/kith-mesh/kith/tensor/gen pack .
//go:generate go run github.com/kith-mesh/kith/tensor/gen reduce .
//go:generate go run github.com/kith-mesh/kith/tensor/gen spin .
