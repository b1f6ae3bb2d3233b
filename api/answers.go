package api

// answerRoutes are the routes of answers of a model.
func (s *Server) answerRoutes() []route { return nil }
