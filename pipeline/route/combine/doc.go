// Package combine makes one answer of what the members of an ensemble answered: by a rule (New, NewColumns), or as the
// inputs of a further model (NewStack).
//
// What flows through it: when a pipeline is applied, the members' output schemas, which are aligned here by name, dtype
// and shape or refused, each fault with its path and what would be right; then, batch by batch, the members' answers as
// typed columns, of which Combine appends the rows of the one answer.
//
// Everything here is pure: no clock, no goroutine, no I/O, and no allocation a row. A Plan and a Stack are immutable and
// safe for concurrent use. The bits of an answer follow from the members' values and from the order of the members in
// the spec alone: never from who answered first.
//
// # Members that did not answer, and nulls
//
// Both are the same to a rule: a null takes no part, for that row and column. Sums, weights and votes are over those
// that take part, so weights are renormalised row by row. Where nobody takes part the answer is null; a column of the
// answer is nullable if any member's is. Where one member alone takes part its value is the answer, to the last bit
// (an integer's mean is still a float64). How many members must answer is the executor's business; here one is enough,
// and those that are required.
//
// NaN is a value, not a null: it makes a mean, a median and a maximum NaN, as in numpy. All NaNs of an answer that
// several members made are the positive quiet one, so that bits do not depend on the processor.
//
// # The rules
//
// Each works by element: a tensor's elements are combined one by one, and no column has a say in another.
//
//	kind           of                        the answer's type         rule
//	mean           integers, floats          float64 of integers,      sum / count, summed in float64 in the order of the spec,
//	                                         else the float's own      rounded to the type once at the end
//	weighted_mean  integers, floats          as mean                   sum of weight x value / sum of weights, in the same way
//	median         integers, floats          as mean                   the middle value; of an even count, the mean of the two
//	majority_vote  all but floats            the same                  most votes; a tie goes to the label of the earliest member
//	weighted_vote  all but floats            the same                  most weight, exact in integers; ties as above
//	max            numbers, bool, timestamp  the same                  the largest; of bools: true if any is
//	concat         everything                the same                  the columns of all members, side by side
//
// The mean of a float32 stays one, so that an ensemble can stand where one of its members stood; nothing is lost by it,
// since the sum is made in float64. Integers are rounded to float64 before they are summed, which is exact up to 2^53;
// so no integer overflows. A sum of float64 values beyond their range is an infinity, as in numpy.
//
// The mean of probabilities is what scikit-learn's VotingClassifier calls soft voting, and a vote on labels its hard
// voting, but for ties: there the smallest label wins, here that of the earliest member, so that the best model is named
// first. The maximum of probabilities is taken class by class (Kittler et al., On Combining Classifiers, 1998, the max
// rule): its largest element is the class of the most confident member, but the elements do not sum to 1.
//
// A vote on floats is refused: two members rarely give the same bits. So is a mean of bools, which is a share: cast them.
//
// # Names
//
// Under every rule but concat, all members answer the same columns, and so does the ensemble, in the order of the first
// member; a column that only some have is a fault. NewColumns takes a rule for each column instead, and leaves out the
// columns that it is not told of: labels by vote, probabilities by mean. Elements that have names (Field.Features) have
// the same names in the same order in all members that name them: probabilities of swapped classes are a fault.
//
// concat names a column <member>_<column>, with the member's dashes as underscores: what CEL can select. Names that meet
// by that are a fault. Columns of a member that is not required are nullable, and null where it did not answer.
//
// # Weights
//
// A weight is any positive integer up to MaxWeight; parts per 10,000 and percentages are such. They need not add up to
// anything, unlike those of a split, where what lacks would be traffic without an arm: here only proportions count, and
// they must be renormalised anyway whenever a member is missing. They are cut by their greatest common divisor, so that
// 90 and 10 give the bits of 9 and 1, and equal weights those of mean.
package combine
