package bulk

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/leatstream/leat/integration/kafka/broker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(broker.Main{M: m}) }
