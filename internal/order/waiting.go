package order

// Waiting tells whether the machine has open entries, or votes that time may
// complete: then it wants to be told each Final.
//
// Members that leave may complete the votes against entries that are Exposed:
// then it wants to be told too.
func (a *Audience) Waiting() bool { return a.list.first != nil || len(a.voted) > 0 }
