package route_test

import (
	"fmt"

	"github.com/leatstream/leat/pipeline/route"
)

// A canary is raised from 10 to 20 %: those who had it keep it.
func ExampleNewSplit() {
	arms := []string{"stable", "canary"}
	before, _ := route.NewSplit("flight-delay", arms, []int{9000, 1000})
	after, err := route.NewSplit("flight-delay", arms, []int{8000, 2000})
	if err != nil {
		fmt.Println(err)
		return
	}
	was, is, left := 0, 0, 0
	for i := range 10_000 {
		tail := fmt.Appendf(nil, "N%dUA", i)
		a, b := before.Arm(tail), after.Arm(tail)
		was, is = was+a, is+b
		if a == 1 && b == 0 {
			left++
		}
	}
	fmt.Printf("canary: %d, then %d of 10000; %d left it\n", was, is, left)

	_, err = route.NewSplit("flight-delay", arms, []int{90, 10})
	fmt.Println(err)
	// Output:
	// canary: 987, then 1946 of 10000; 0 left it
	// arms: weights add up to 100 parts per 10,000, they must add up to 10000
}

// A bandit learns of three arms; its decision can be derived again from a snapshot and the seed.
func ExampleDecide() {
	spec := route.DefaultBandit(route.Thompson)
	spec.Arms = []string{"small", "medium", "large"}
	spec.MinimumShare = 500
	plan, err := route.NewPlan(spec)
	if err != nil {
		fmt.Println(err)
		return
	}
	fold := route.NewFold(plan)
	for i := range uint64(90) {
		arm := int(i % 3)
		value := 0.0
		if arm == 2 || i%5 == 0 { // the large model is always right, the others a fifth of the time
			value = 1
		}
		reward := route.Reward{Position: i + 1, DecisionID: [32]byte{byte(i)}, Arm: spec.Arms[arm], Value: value}
		if _, err := fold.Apply(reward); err != nil {
			fmt.Println(err)
			return
		}
	}
	snapshot, _ := fold.MarshalBinary()

	seed := route.Seed([32]byte{1, 2, 3}, 0, "bandit")
	d, _ := route.Decide(plan, seed, nil, fold.State())
	fmt.Printf("%s, propensity %.4f\n", spec.Arms[d.Arm], d.Propensity)

	again := route.NewFold(plan)
	if err := again.UnmarshalBinary(snapshot); err != nil {
		fmt.Println(err)
		return
	}
	e, _ := route.Decide(plan, seed, nil, again.State())
	fmt.Println("derived again:", d == e)
	// Output:
	// large, propensity 0.8999
	// derived again: true
}
